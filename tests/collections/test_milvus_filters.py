"""Filters as expressions of Milvus select what they select anywhere else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedsvc.collections.collection import CollectionOptions, Document
from embedsvc.collections.filters import AllOf, AnyOf, Exists, Filter, Not, OneOf, parse_filter
from embedsvc.collections.metadata import terms_of
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.milvus_filters import facts_of, filter_expression, joined_fields
from embedsvc.errors import InvalidInputError

FIELDS = ["year", "tag", "a.b", 'naïve "x" \\ \' {', "never"]
VALUES: list[Any] = [
    *(0, 1, -1, 2, 2.5, -0.0, 10**9, 2**53, 1e300, -1e-9, True, False, None),
    *(
        "",
        "a",
        "b",
        "ab",
        "Z",
        "é",
        "\U0001f389",
        "\uffff",
        "x' or 1 == 1",
        '"]) or (',
        "a" * 300,
        "a" * 299 + "b",
    ),
]


def random_metadata(rng: random.Random) -> dict[str, Any] | None:
    metadata: dict[str, Any] = {}
    for field in FIELDS[:-1]:
        kind = rng.random()
        if kind < 0.4:
            metadata[field] = rng.choice(VALUES)
        elif kind < 0.7:
            metadata[field] = rng.sample(VALUES, rng.randint(0, 5))
    if rng.random() < 0.5:
        metadata["a"] = [{"b": rng.choice(VALUES)}, {"b": [rng.choice(VALUES)]}, "loose"]
    return metadata if rng.random() < 0.9 else None


DOCUMENTS = [
    Document(f"d{i}", "text", "en", random_metadata(random.Random(i)), np.array([1, i], np.float32))
    for i in range(40)
]
values = st.sampled_from(VALUES)
bounds = st.sampled_from([v for v in VALUES if isinstance(v, int | float) and not isinstance(v, bool)])
words = st.sampled_from([v for v in VALUES if isinstance(v, str) and len(v) < 65])


def ranges(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    low = st.builds(lambda name, bound: {name: bound}, st.sampled_from(["$gt", "$gte"]), of)
    high = st.builds(lambda name, bound: {name: bound}, st.sampled_from(["$lt", "$lte"]), of)
    return st.one_of(low, high, st.builds(lambda one, other: one | other, low, high))


comparisons = st.one_of(
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$eq", "$ne"]), values),
    st.builds(
        lambda name, some: {name: some}, st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=4)
    ),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
    ranges(bounds),
    ranges(words),
)
conditions = st.builds(
    lambda field, comparison: {field: comparison}, st.sampled_from(FIELDS[:-1]), comparisons
)
filters = st.recursive(
    conditions,
    lambda part: st.one_of(
        st.builds(lambda inner: {"$not": inner}, part),
        st.builds(
            lambda name, parts: {name: parts},
            st.sampled_from(["$and", "$or"]),
            st.lists(part, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)


def holds(wanted: Filter, metadata: dict[str, Any] | None) -> bool:
    """What the words of `filters` say, taken literally."""
    if isinstance(wanted, Not):
        return not holds(wanted.part, metadata)
    if isinstance(wanted, AllOf):
        return all(holds(part, metadata) for part in wanted.parts)
    if isinstance(wanted, AnyOf):
        return any(holds(part, metadata) for part in wanted.parts)
    own = [term for term in terms_of(metadata) if term.field == wanted.field]
    if isinstance(wanted, Exists):
        return bool(own)
    if isinstance(wanted, OneOf):
        return any(term in wanted.terms for term in own)
    return any(
        (wanted.low is None or (term.value > wanted.low if wanted.strict_low else term.value >= wanted.low))  # type: ignore[operator]
        and (
            wanted.high is None
            or (term.value < wanted.high if wanted.strict_high else term.value <= wanted.high)
        )  # type: ignore[operator]
        for term in own
        if term.kind == wanted.kind
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusCollection]:
    pytest.importorskip("pymilvus", reason="needs the [milvus] extra")
    server = pytest.importorskip("milvus_lite.server_manager", reason="needs the [milvus] extra")
    path: Path = tmp_path_factory.mktemp("milvus") / "filters.db"
    with MilvusCollection(str(path), "filters", options=CollectionOptions(dimension=2)) as collection:
        collection.upsert(DOCUMENTS)
        yield collection
    server.server_manager_instance.release_server(str(path))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=filters)
def test_milvus_selects_what_the_filter_says(stored: MilvusCollection, wanted: dict[str, Any]) -> None:
    parsed = parse_filter(wanted)
    expected = {document.id for document in DOCUMENTS if holds(parsed, document.metadata)}
    assert {document.id for document in stored.documents(filter=wanted)} == expected
    assert {hit.id for hit in stored.search_vector([1, 1], filter=wanted, top_k=50)} == expected


@pytest.mark.slow
def test_delete_where_deletes_what_the_filter_says(stored: MilvusCollection) -> None:
    with MilvusCollection(stored.uri, "deleting", options=CollectionOptions(dimension=2)) as collection:
        collection.upsert(DOCUMENTS)
        wanted = {"$or": [{"year": {"$gte": 1}}, {"tag": {"$exists": False}}]}
        gone = {document.id for document in DOCUMENTS if holds(parse_filter(wanted), document.metadata)}
        assert 0 < len(gone) < 40
        assert collection.delete_where(wanted, languages=["de"]) == 0
        assert collection.delete_where(wanted, languages=["en"]) == len(gone)
        assert {document.id for document in collection.documents()} == {d.id for d in DOCUMENTS} - gone


def test_nothing_that_users_wrote_stands_in_an_expression() -> None:
    metadata = {'x"] or true': ['"; drop', 1, "z"]}
    known = joined_fields(facts_of(metadata, "documents[0]").fields)
    wanted = parse_filter({'x"] or true': {"$in": ['"; drop'], "$gte": "z", "$exists": True}})
    expression = filter_expression(wanted, known)
    assert "drop" not in expression
    assert "true" not in expression
    assert set(expression) <= set('abcdefghijklmnopqrstuvwxyz_0123456789()[]"<>=, ')


def test_ranges_refuse_what_they_cannot_compare() -> None:
    known = joined_fields(facts_of({"n": list(range(17)), "s": ["a"]}, "documents[0]").fields)
    assert (known["n"].numbers, known["s"].strings) == (17, 1)
    with pytest.raises(InvalidInputError, match="a range on 'n', of which a document has had more than 16"):
        filter_expression(parse_filter({"n": {"$gt": 3}}), known)
    with pytest.raises(InvalidInputError, match=r"a bound on 's' has 300 bytes; .* the limit is 64"):
        filter_expression(parse_filter({"s": {"$gt": "é" * 150}}), known)
    assert filter_expression(parse_filter({"n": {"$gt": "a"}}), known) == "number < -1"


def test_metadata_beyond_the_limits_of_milvus_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"documents\[3\].metadata has 4100 values in 1 fields"):
        facts_of({"n": list(range(4100))}, "documents[3]")
    with pytest.raises(InvalidInputError, match=r"documents\[3\].metadata is too large for backend milvus"):
        facts_of({f"f{i}": "x" * 60 for i in range(500)}, "documents[3]")
