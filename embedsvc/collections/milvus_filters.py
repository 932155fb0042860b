"""Filters on metadata in Milvus: what is stored beside a document, and the expression that asks for it.

Milvus compares a JSON value, but knows neither "any element of the list" nor our rules for missing
fields and kinds. So each scalar becomes a mark, a hash of (field, kind, value), and equality asks for
marks; for ranges the sorted values of each field stand in a JSON object and are compared one by one.
Names and values of users thereby stand in no expression: only hashes, numbers and hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from embedsvc.collections.filters import AllOf, AnyOf, Exists, Filter, InRange, Not, OneOf
from embedsvc.collections.metadata import Term, terms_of
from embedsvc.errors import InvalidInputError

MARK_CHARACTERS = 32
MAX_MARKS = 4_096  # elements of an array in Milvus
MAX_RANGED = 16  # values of one field in one document that ranges compare
MAX_RANGES_BYTES = 65_000
_BOUND_BYTES = 64
_NOTHING = "number < -1"


@dataclass(frozen=True, order=True)
class KnownField:
    """A metadata field, and how many distinct numbers and strings a document has had in it at most.

    Counts stop at one above MAX_RANGED.
    """

    name: str
    numbers: int
    strings: int


@dataclass(frozen=True)
class Facts:
    """What is stored of a document's metadata to filter by, and the fields that it has."""

    marks: list[str]
    ranges: dict[str, list[float] | list[str]]
    fields: list[KnownField]


def facts_of(metadata: Mapping[str, Any] | None, where: str) -> Facts:
    """Return what filters need of metadata; ``where`` is what errors call the document.

    Raises InvalidInputError for more values than Milvus holds in an array.
    """
    by_field: dict[str, list[Term]] = defaultdict(list)
    for term in terms_of(metadata):
        by_field[term.field].append(term)
    marks: list[str] = []
    ranges: dict[str, list[float] | list[str]] = {}
    fields = []
    for name, terms in by_field.items():
        marks.append(_mark(name, "exists"))
        marks += [_mark(name, term.kind, term.value) for term in terms]
        numbers = sorted(float(term.value) for term in terms if term.kind == "n")[: MAX_RANGED + 1]
        strings = sorted(_sortable(str(term.value)) for term in terms if term.kind == "s")[: MAX_RANGED + 1]
        for kind, values in (("n", numbers), ("s", strings)):
            if values:
                ranges[_mark(name, kind)] = values[:MAX_RANGED]
                marks += [_mark(name, kind, "place", place) for place in range(len(values[:MAX_RANGED]))]
        fields.append(KnownField(name, len(numbers), len(strings)))
    if len(marks) > MAX_MARKS:
        raise InvalidInputError(
            f"{where}.metadata has {sum(map(len, by_field.values()))} values in {len(fields)} fields; "
            f"with backend milvus they may be {MAX_MARKS} marks, and these are {len(marks)}",
            param="documents",
        )
    if len(json.dumps(ranges)) > MAX_RANGES_BYTES:
        raise InvalidInputError(
            f"{where}.metadata is too large for backend milvus: what range filters need of it takes "
            f"{len(json.dumps(ranges))} bytes; the limit is {MAX_RANGES_BYTES}",
            param="documents",
        )
    return Facts(marks, ranges, fields)


def joined_fields(known: Iterable[KnownField]) -> dict[str, KnownField]:
    """Return each field once, with its largest counts."""
    joined: dict[str, KnownField] = {}
    for field in known:
        other = joined.get(field.name, field)
        joined[field.name] = KnownField(
            field.name, max(field.numbers, other.numbers), max(field.strings, other.strings)
        )
    return joined


def filter_expression(wanted: Filter, known: Mapping[str, KnownField]) -> str:
    """Return a filter as an expression of Milvus; raise InvalidInputError for a range it cannot compare."""
    if isinstance(wanted, Not):
        return f"not ({filter_expression(wanted.part, known)})"
    if isinstance(wanted, AllOf | AnyOf):
        word = " and " if isinstance(wanted, AllOf) else " or "
        return word.join(f"({filter_expression(part, known)})" for part in wanted.parts)
    if isinstance(wanted, Exists):
        return _has(_mark(wanted.field, "exists"))
    if isinstance(wanted, OneOf):
        marks = [_mark(term.field, term.kind, term.value) for term in wanted.terms]
        return f"array_contains_any(marks, {json.dumps(marks)})" if marks else _NOTHING
    return _range_expression(wanted, known)


def languages_expression(languages: Iterable[str] | None) -> str:
    """Return the expression that lets documents in these languages through; empty for all."""
    return "" if languages is None else f"language in {json.dumps(sorted(languages))}"


def all_of(*expressions: str) -> str:
    """Return the expression that asks for all of those that are not empty."""
    return " and ".join(f"({expression})" for expression in expressions if expression)


def _range_expression(wanted: InRange, known: Mapping[str, KnownField]) -> str:
    """Compare each place that any document has; a mark tells that this one has it, for nothing is null."""
    field = known.get(wanted.field, KnownField(wanted.field, 0, 0))
    places = field.numbers if wanted.kind == "n" else field.strings
    if places > MAX_RANGED:
        raise InvalidInputError(
            f"filter: a range on {wanted.field!r}, of which a document has had more than {MAX_RANGED} "
            "different values; with backend milvus that is not offered",
            param="filter",
        )
    name = _mark(wanted.field, wanted.kind)
    alternatives = []
    for place in range(places):
        parts = [_has(_mark(wanted.field, wanted.kind, "place", place))]
        for bound, sign in (
            (wanted.low, ">" if wanted.strict_low else ">="),
            (wanted.high, "<" if wanted.strict_high else "<="),
        ):
            if bound is not None:
                parts.append(f'ranges["{name}"][{place}] {sign} {_literal(bound, wanted.field)}')
        alternatives.append(f"({' and '.join(parts)})")
    return " or ".join(alternatives) or _NOTHING


def _literal(bound: float | str, field: str) -> str:
    if not isinstance(bound, str):
        return repr(float(bound))
    size = len(bound.encode("utf-8", "surrogatepass"))
    if size > _BOUND_BYTES:
        raise InvalidInputError(
            f"filter: a bound on {field!r} has {size} bytes; with backend milvus the limit is {_BOUND_BYTES}",
            param="filter",
        )
    return f'"{_sortable(bound)}"'


def _sortable(text: str) -> str:
    """Return digits that sort as the text does; of a longer text than any bound, enough to tell."""
    return text.encode("utf-8", "surrogatepass")[: _BOUND_BYTES + 1].hex()


def _has(mark: str) -> str:
    return f'array_contains(marks, "{mark}")'


def _mark(*parts: str | float) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=MARK_CHARACTERS // 2).hexdigest()
