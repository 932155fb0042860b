"""Filters on metadata, written as in Pinecone and Chroma.

    {"source": "manual", "year": {"$gte": 2020, "$lt": 2025}, "$not": {"tags": {"$in": ["old", "draft"]}}}

Several keys of one object must all hold. A list in the metadata matches when any of its elements does;
"author.name" reaches into objects. A document without the field matches only ``$ne``, ``$nin``,
``$exists: false`` and what stands under ``$not``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.metadata import Term, scalar_term, shown
from embedsvc.errors import InvalidInputError

Rows = NDArray[np.int64]
_MAX_DEPTH = 16
_MAX_CONDITIONS = 64
MAX_VALUES = 10_000  # of all $in and $nin of a filter together
_RANGES = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES, "$exists")
_GROUPS = ("$and", "$or", "$not")


@dataclass(frozen=True)
class OneOf:
    """The field has one of these values."""

    field: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class InRange:
    """The field has a value of the bounds' kind between them; ``strict`` excludes the bound itself."""

    field: str
    kind: Literal["n", "s"]
    low: int | float | str | None = None
    high: int | float | str | None = None
    strict_low: bool = False
    strict_high: bool = False


@dataclass(frozen=True)
class Exists:
    """The field is there."""

    field: str


@dataclass(frozen=True)
class Not:
    part: Filter


@dataclass(frozen=True)
class AllOf:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Filter, ...]


Condition = OneOf | InRange | Exists
Filter = Condition | Not | AllOf | AnyOf


class Postings(Protocol):
    """Where the documents of a condition are looked up."""

    def field_names(self) -> list[str]:
        """Return the fields that any document has had."""

    def matching(self, condition: Condition) -> Rows:
        """Return the rows of the documents that satisfy a condition, distinct, in any order."""


def parse_filter(given: object) -> Filter:
    """Return the filter that a JSON object means; raise InvalidInputError naming what is wrong in it."""
    parser = _Parser()
    return parser.group(given, 0)


def fields_of(wanted: Filter) -> set[str]:
    """Return the fields that a filter names."""
    if isinstance(wanted, Not):
        return fields_of(wanted.part)
    if isinstance(wanted, AllOf | AnyOf):
        return set[str]().union(*(fields_of(part) for part in wanted.parts))
    return {wanted.field}


def check_fields(wanted: Filter, known: Sequence[str]) -> None:
    """Raise InvalidInputError for a field that no document has."""
    for name in sorted(fields_of(wanted) - set(known)):
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)[:20]) or 'none'}"
        raise InvalidInputError(f"filter: no document has a field {name!r}; {hint}", param="filter")


def check_group(group_by: str, known: Sequence[str]) -> None:
    """Raise InvalidInputError when hits cannot be grouped by a field that no document has."""
    if group_by not in known:
        raise InvalidInputError(
            f"group_by: no document has a field {group_by!r}; "
            f"known: {', '.join(sorted(known)[:20]) or 'none'}",
            param="group_by",
        )


def matching_mask(wanted: Filter, postings: Postings, last_row: int) -> NDArray[np.bool_]:
    """Return a mask (last_row + 1,) over document rows that is true where the filter holds.

    Rows that are no documents may be true: under ``$not``.
    """
    if isinstance(wanted, Not):
        return ~matching_mask(wanted.part, postings, last_row)
    if isinstance(wanted, AllOf | AnyOf):
        # One by one: 64 masks of a million documents are 64 megabytes.
        masks = (matching_mask(part, postings, last_row) for part in wanted.parts)
        return reduce(np.logical_and if isinstance(wanted, AllOf) else np.logical_or, masks)
    mask = np.zeros(last_row + 1, bool)
    mask[postings.matching(wanted)] = True
    return mask


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def group(self, given: object, depth: int) -> Filter:
        if not isinstance(given, Mapping):
            raise _bad(f"{shown(given)} is no object")
        if not given:
            raise _bad("an object without any condition; leave the filter out to search everything")
        if depth > _MAX_DEPTH:
            raise _bad(f"nested more than {_MAX_DEPTH} deep")
        parts = [self._entry(name, value, depth) for name, value in given.items()]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _entry(self, name: object, value: object, depth: int) -> Filter:
        if not isinstance(name, str) or not name:
            raise _bad(f"{name!r} is no name of a field")
        if name == "$not":
            return Not(self.group(value, depth + 1))
        if name in ("$and", "$or"):
            if not isinstance(value, list | tuple) or not value:
                raise _bad(f"{name} has {shown(value)}; a list of filters expected")
            parts = tuple(self.group(part, depth + 1) for part in value)
            return AllOf(parts) if name == "$and" else AnyOf(parts)
        if name.startswith("$"):
            raise _bad(f"unknown operator {name!r}; known here: {', '.join(_GROUPS)}")
        if not isinstance(value, Mapping):
            value = {"$in": value} if isinstance(value, list | tuple) else {"$eq": value}
        return self._comparison(name, value)

    def _comparison(self, field: str, operators: Mapping[str, Any]) -> Filter:
        if not operators:
            raise _bad(f"{field!r} has no operator; known: {', '.join(_OPERATORS)}")
        self._conditions += len(operators)
        if self._conditions > _MAX_CONDITIONS:
            raise _bad(f"more than {_MAX_CONDITIONS} conditions")
        for name in ("$in", "$nin"):
            if isinstance(listed := operators.get(name), list | tuple):
                self._count_values(field, name, len(listed))
        ranges = {name: value for name, value in operators.items() if name in _RANGES}
        parts = [_plain(field, name, value) for name, value in operators.items() if name not in _RANGES]
        if ranges:
            parts.append(_range(field, ranges))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _count_values(self, field: str, name: str, count: int) -> None:
        before, self._values = self._values, self._values + count
        if self._values > MAX_VALUES:
            others = f", and others before it {before}" if before else ""
            raise _bad(f"{field!r}: {name} has {count} values{others}; the limit is {MAX_VALUES} in all")


def _plain(field: str, name: str, value: object) -> Filter:
    if name in ("$eq", "$ne"):
        equal = OneOf(field, (scalar_term(field, value),))
        return equal if name == "$eq" else Not(equal)
    if name in ("$in", "$nin"):
        if not isinstance(value, list | tuple):
            raise _bad(f"{field!r}: {name} has {shown(value)}; a list expected")
        any_of = OneOf(field, tuple(scalar_term(field, entry) for entry in value))
        return any_of if name == "$in" else Not(any_of)
    if name == "$exists":
        if not isinstance(value, bool):
            raise _bad(f"{field!r}: $exists has {shown(value)}; true or false expected")
        return Exists(field) if value else Not(Exists(field))
    raise _bad(f"{field!r}: unknown operator {name!r}; known: {', '.join(_OPERATORS)}")


def _range(field: str, bounds: Mapping[str, object]) -> InRange:
    terms = {name: scalar_term(field, value) for name, value in bounds.items()}
    kinds = {term.kind for term in terms.values()}
    if len(kinds) > 1 or not kinds <= {"n", "s"}:
        raise _bad(f"{field!r}: the bounds {shown(dict(bounds))} must be numbers, or all strings")
    for pair in (("$gt", "$gte"), ("$lt", "$lte")):
        if terms.keys() >= set(pair):
            raise _bad(f"{field!r}: give {pair[0]} or {pair[1]}, not both")
    low, high = terms.get("$gt", terms.get("$gte")), terms.get("$lt", terms.get("$lte"))
    return InRange(
        field,
        "n" if kinds == {"n"} else "s",
        low=None if low is None else low.value,
        high=None if high is None else high.value,
        strict_low="$gt" in terms,
        strict_high="$lt" in terms,
    )


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError(f"filter: {message}", param="filter")
