"""The kinds of jobs. A new kind is one entry here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError

from embedsvc.errors import InvalidInputError
from embedsvc.jobs.aligning import ALIGN
from embedsvc.jobs.kind import JobKind
from embedsvc.jobs.mining import MINE
from embedsvc.jobs.scoring import SCORE

KINDS: dict[str, JobKind] = {"mine": MINE, "score": SCORE, "align": ALIGN}


def kind_of(name: str) -> JobKind:
    """Return a kind by its name; raise InvalidInputError naming those that there are."""
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise InvalidInputError(f"kind is {name[:60]!r}; known: {known}", param="kind")
    return KINDS[name]


def checked_options(kind: JobKind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as JSON with every default filled in; raise InvalidInputError naming a wrong one."""
    names = [field.name for field in dataclasses.fields(kind.options)]
    for name in given:
        if name not in names:
            near = get_close_matches(name[:60], names, n=1, cutoff=0)
            hint = f"the nearest is {near[0]!r}" if near else "this kind has none"
            raise InvalidInputError(f"no option is called {name[:60]!r}; {hint}", param="options")
    return to_json(kind, options_of(kind, given))


def options_of(kind: JobKind, given: Mapping[str, Any]) -> Any:
    """Return options from JSON as the kind's dataclass; raise InvalidInputError naming a wrong one."""
    try:
        return TypeAdapter(kind.options).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "options"
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        shown = repr(first["input"])[:60]
        raise InvalidInputError(f"options: {where} is {shown}: {reason}", param="options") from error


def to_json(kind: JobKind, options: Any) -> dict[str, Any]:
    """Return options as a JSON object."""
    value: dict[str, Any] = TypeAdapter(kind.options).dump_python(options, mode="json")
    return value
