"""Metadata comes back as it was given, and its terms are those of its JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.document import metadata_json
from embedsvc.collections.metadata import Term, terms_of, terms_of_json
from embedsvc.errors import InvalidInputError


def test_terms_by_hand() -> None:
    metadata = {
        "year": 2020,
        "score": 1.0,
        "tags": ["a", "b", "a", []],
        "author": {"name": "Ada", "of": [{"x": None}, {"x": True}]},
        "empty": {},
        "a.b": -0.0,
        "": {"a": "inner"},
    }
    assert terms_of(metadata) == [
        Term("year", "n", 2020),
        Term("score", "n", 1),
        Term("tags", "s", "a"),
        Term("tags", "s", "b"),
        Term("author.name", "s", "Ada"),
        Term("author.of.x", "z", 0),
        Term("author.of.x", "b", 1),
        Term("a.b", "n", 0),
        Term(".a", "s", "inner"),
    ]
    assert terms_of(None) == terms_of({}) == terms_of_json(None) == []


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (2**53, float(2**53), True),
        (2**53 + 1, 2**53, True),
        (-(2**53) - 1, -(2.0**53), True),
        (10**20, 1e20, True),
        (2**53 - 1, 2**53, False),
        (0, -0.0, True),
        (True, 1, False),
        (False, 0, False),
        (1, "1", False),
        (None, 0, False),
        (None, False, False),
        (0.1 + 0.2, 0.3, False),
        ("ä", "a\u0308", False),
    ],
)
def test_equal_values_have_one_term(one: Any, other: Any, equal: bool) -> None:
    assert (terms_of({"x": one}) == terms_of({"x": other})) == equal


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
KEYS = st.text(max_size=3).filter(lambda key: key.isprintable())
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["a", "b.c", "é", "$x", "", '"']), JSON, max_size=4))
def test_terms_are_those_of_the_stored_json(metadata: dict[str, Any]) -> None:
    """A document is deleted by the terms of its JSON: others would stay for ever."""
    text = metadata_json(metadata, "documents[0]")
    assert text is not None
    assert json.loads(text) == metadata
    assert terms_of_json(text) == terms_of(metadata)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 1}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([1], r"documents\[1\].metadata must be an object with string keys"),
        ({1: "x"}, "must be an object with string keys"),
        ({"a": {True: 1}}, "must be an object with string keys"),
        ({"a": [{"b": {None: 1}}]}, "must be an object with string keys"),
        ({"a": ({2: 1},)}, "must be an object with string keys"),
        ({"a": float("nan")}, r"documents\[1\].metadata cannot be written as JSON"),
        ({"a": {1, 2}}, "cannot be written as JSON"),
        ({"a": "\ud800"}, "cannot be written as JSON: .*surrogate"),
        (
            {"a": [10**400]},
            r"documents\[1\].metadata holds the number 1000.*000; the largest is about 1.8e308",
        ),
        ({"a": -(10**400)}, "holds the number -1000.*; the largest"),
        ({"a": "x" * 70_000}, r"documents\[1\].metadata has 70009 bytes of JSON; the limit is 65536"),
        ({"a": "ü" * 33_000}, "metadata has 66009 bytes"),
        (nested(33), r"documents\[1\].metadata is nested more than 32 deep"),
        (nested(50_000), r"documents\[1\].metadata"),
    ],
    ids=range(14),
)
def test_bad_metadata_is_refused_and_nothing_written(tmp_path: Any, metadata: Any, message: str) -> None:
    with Collection(tmp_path / "c", options=CollectionOptions(dimension=2)) as collection:
        good = {"id": "a", "text": "", "language": "en", "vector": [1, 0], "metadata": nested(32)}
        with pytest.raises(InvalidInputError, match=message):
            collection.upsert([good, {**good, "id": "b", "metadata": metadata}])
        assert collection.count == 0
        collection.upsert([good])
        assert collection.get("a").metadata == nested(32)
        assert collection.delete(["a"]) == 1


def test_largest_metadata_is_kept_and_found(tmp_path: Any) -> None:
    metadata = {f"field {number}": [number, f"value {number}"] for number in range(1500)}
    with Collection(tmp_path / "c", options=CollectionOptions(dimension=2)) as collection:
        collection.upsert([{"id": "a", "text": "", "language": "en", "vector": [1, 0], "metadata": metadata}])
        assert collection.get("a").metadata == metadata
        assert collection.search_vector([1, 0], filter={"field 1499": 1499, "field 3": "value 3"})
        assert not collection.search_vector([1, 0], filter={"field 1499": 1498})
        assert collection.delete(["a"]) == 1
        with pytest.raises(InvalidInputError, match="no document has a field 'nothing'"):
            collection.search_vector([1, 0], filter={"nothing": 1})
        assert collection.search_vector([1, 0], filter={"field 3": 3}) == []
