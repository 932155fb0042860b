"""The kinds of jobs: what each takes, and the function that does it. A new kind is one entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.progress import Report


@dataclass(frozen=True)
class Input:
    """Files that a kind takes under one name; ``many``: more than one."""

    name: str
    about: str
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class JobTask:
    """What the function of a kind is given; ``options`` is of the kind's class.

    The result is written to ``out``, JSON lines. Killed at any moment and called again with the same
    ``work`` folder, the function goes on and writes the same bytes.
    """

    inputs: Mapping[str, tuple[Path, ...]]
    options: Any
    work: Path
    out: Path
    open_encoder: Callable[[], Encoder]
    report: Report


@dataclass(frozen=True)
class JobKind:
    """A kind of job. ``options`` is a dataclass; ``run`` returns what is told of the result."""

    about: str
    inputs: tuple[Input, ...]
    options: type
    run: Callable[[JobTask], dict[str, Any]]
    best_first: bool = True  # the lines of the result

    def input(self, name: str) -> Input | None:
        return next((known for known in self.inputs if known.name == name), None)


KINDS: dict[str, JobKind] = {}


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
        return TypeAdapter(kind.options).validate_python(given)
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
