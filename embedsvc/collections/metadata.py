"""Metadata as searchable terms: (field, kind, value) for every scalar in it."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embedsvc.errors import InvalidInputError

TermKind = Literal["b", "n", "s", "z"]
_EXACT_INTEGERS = 2**53  # JSON numbers beyond it are compared as floats
_LARGEST = sys.float_info.max
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 2, 3, 3, 4


@dataclass(frozen=True, order=True)
class Term:
    """One scalar of a document's metadata; ``field`` is its path ("author.name")."""

    field: str
    kind: TermKind
    value: int | float | str


def terms_of(metadata: Mapping[str, Any] | None) -> list[Term]:
    """Return the distinct terms of metadata; an element of a list stands for itself."""
    if not metadata:
        return []
    return list(dict.fromkeys(_walk(metadata)))


def terms_of_json(metadata: str | None) -> list[Term]:
    """Return the terms of metadata in the form in which it is stored."""
    return [] if metadata is None else terms_of(json.loads(metadata))


def scalar_term(field: str, value: object) -> Term:
    """Return a scalar as a term; raise InvalidInputError for what is none, or what no metadata can hold."""
    if isinstance(value, bool):
        return Term(field, "b", int(value))
    if value is None:
        return Term(field, "z", 0)
    if isinstance(value, str):
        return Term(field, "s", _valid(field, value))
    if isinstance(value, int | float) and abs(value) <= _LARGEST:
        return Term(field, "n", _number(value))
    raise InvalidInputError(
        f"filter: {field!r} is compared with {shown(value)}; "
        "a string, a number, true, false or null expected",
        param="filter",
    )


def shown(value: object) -> str:
    """Return a value as errors show it: never long, however large or deep it is."""
    return _SHORT.repr(value)


def _valid(field: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"filter: {field!r} is compared with text that holds a lone surrogate at character {error.start}",
            param="filter",
        ) from error
    return value


def _number(value: int | float) -> int | float:
    """Equal numbers become the same value, whatever their JSON spelling."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_INTEGERS:
        return int(value)
    return value if abs(value) <= _EXACT_INTEGERS else float(value)


def _walk(value: Any, path: str | None = None) -> Iterator[Term]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, key if path is None else f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(inner, path)
    else:
        yield scalar_term(path or "", value)
