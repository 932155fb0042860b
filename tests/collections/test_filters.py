"""Filters on metadata mean what a recursive evaluation of them says, through every change of documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.document import Document, metadata_json
from embedsvc.collections.filters import OneOf, check_fields, matching_mask, parse_filter
from embedsvc.collections.options import CollectionOptions as Options
from embedsvc.collections.passages import Span
from embedsvc.collections.schema import Identity, create_tables
from embedsvc.collections.views import _condition_sql
from embedsvc.collections.writer import Batch, Writer
from embedsvc.errors import InvalidInputError
from tests.collections.oracle import holds


def empty_writer() -> Writer:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection, Identity("", "", 2), Options(dimension=2))
    return Writer(connection)


def batch(documents: Sequence[tuple[str, dict[str, Any] | None]]) -> Batch:
    return Batch(
        [Document(id_, "", "en", metadata) for id_, metadata in documents],
        [metadata_json(metadata, "documents") for _, metadata in documents],
        [[Span(0, 0)] for _ in documents],
        np.tile(np.array([1, 0], np.float32), (len(documents), 1)),
        ["" for _ in documents],
    )


def found(writer: Writer, wanted: Any) -> set[str]:
    """The ids of the documents that a filter lets through."""
    mask = matching_mask(parse_filter(wanted), writer, writer.last_row("documents"))
    return {document.id for row, document in writer.documents() if mask[row]}


NAMES = st.sampled_from(["a", "b", "a.b", 'q"uote', "über", "x y", "'; --", "c"])
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 1.0, 0.5, -0.0, 0.1, 1e300, 2**53, 2**53 + 1, 10**20, 1e20, 5e-324, 7]
)
STRINGS = st.sampled_from(["", "1", "a", "A", "ü", "ü", "true", "null", "z\0z", "z", "\U0001f600", "['a']"])
SCALARS = st.none() | st.booleans() | NUMBERS | STRINGS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.none() | st.dictionaries(NAMES, VALUES, max_size=4)
BOUNDS = st.fixed_dictionaries({}, optional={"$gt": NUMBERS, "$lte": NUMBERS}) | st.fixed_dictionaries(
    {}, optional={"$gte": STRINGS, "$lt": STRINGS}
)
EQUALS = st.fixed_dictionaries(
    {},
    optional={
        "$eq": SCALARS,
        "$ne": SCALARS,
        "$in": st.lists(SCALARS, max_size=3),
        "$nin": st.lists(SCALARS, max_size=3),
        "$exists": st.booleans(),
    },
)
OPERATORS = st.tuples(EQUALS, BOUNDS).map(lambda pair: pair[0] | pair[1]).filter(bool)
CONDITIONS = st.dictionaries(
    NAMES, SCALARS | st.lists(SCALARS, max_size=2) | OPERATORS, min_size=1, max_size=2
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.dictionaries(st.just("$not"), inner, min_size=1)
        | st.dictionaries(
            st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1
        )
        | st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1])
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    first=st.lists(METADATA, min_size=1, max_size=6),
    changed=st.dictionaries(st.integers(0, 5), METADATA, max_size=3),
    gone=st.sets(st.integers(0, 5), max_size=2),
    filters=st.lists(FILTERS, min_size=1, max_size=4),
)
def test_any_filter_on_any_metadata_equals_its_recursive_evaluation(
    first: list[Any], changed: dict[int, Any], gone: set[int], filters: list[Any]
) -> None:
    writer = empty_writer()
    known = {str(number): metadata for number, metadata in enumerate(first)}
    steps: list[dict[str, Any]] = [{}, {str(n): metadata for n, metadata in changed.items()}]
    writer.upsert(batch(list(known.items())))
    for step in steps:
        known |= step
        if step:
            writer.upsert(batch(list(step.items())))
        for wanted in filters:
            assert found(writer, wanted) == {i for i, metadata in known.items() if holds(wanted, metadata)}, (
                wanted
            )
    writer.delete([str(number) for number in gone])
    for wanted in filters:
        left = {i: metadata for i, metadata in known.items() if int(i) not in gone}
        assert found(writer, wanted) == {i for i, metadata in left.items() if holds(wanted, metadata)}
    writer.delete(list(known))
    assert writer.number("SELECT count(*) FROM terms") == 0
    writer.connection.close()


DOCUMENTS: dict[str, dict[str, Any] | None] = {
    "one": {"n": 1, "tags": ["old", "new"], "author": {"name": "Ada"}, "ok": True},
    "two": {"n": 1.0, "tags": [], "author": {"name": "Grace", "age": 40}, "ok": "1"},
    "three": {"n": 2.5, "tags": "old", "ok": 1},
    "four": {"n": None, "author.name": "Ada", "ok": False},
    "five": {"n": 2**53 + 1, "list": [{"x": 1}, {"x": [2, 3]}], "ok": None},
    "six": None,
}


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"n": 1}, "one two"),
        ({"n": {"$eq": 1.0}}, "one two"),
        ({"n": {"$ne": 1}}, "three four five six"),
        ({"n": [1, 2.5]}, "one two three"),
        ({"n": {"$in": []}}, ""),
        ({"n": {"$nin": []}}, "one two three four five six"),
        ({"n": {"$nin": [1, None]}}, "three five six"),
        ({"n": {"$gt": 1}}, "three five"),
        ({"n": {"$gte": 1, "$lt": 2.5}}, "one two"),
        ({"n": {"$lte": 2.5, "$ne": 1}}, "three"),
        ({"n": float(2**53)}, "five"),
        ({"n": None}, "four"),
        ({"n": {"$exists": True}}, "one two three four five"),
        ({"n": {"$exists": False}}, "six"),
        ({"ok": True}, "one"),
        ({"ok": 1}, "three"),
        ({"ok": "1"}, "two"),
        ({"ok": {"$in": [False, None]}}, "four five"),
        ({"ok": {"$gte": 0}}, "three"),
        ({"tags": "old"}, "one three"),
        ({"tags": {"$ne": "old"}}, "two four five six"),
        ({"tags": {"$exists": False}}, "two four five six"),
        ({"tags": {"$gte": "new", "$lt": "o"}}, "one"),
        ({"author.name": "Ada"}, "one four"),
        ({"author.name": {"$gt": "Ada"}}, "two"),
        ({"list.x": 3}, "five"),
        ({"list.x": {"$gt": 1, "$lt": 3}}, "five"),
        ({"$not": {"author.name": "Ada"}}, "two three five six"),
        ({"$or": [{"n": 2.5}, {"ok": True}]}, "one three"),
        ({"$and": [{"n": 1}, {"$not": {"ok": True}}]}, "two"),
        ({"n": 1, "ok": "1"}, "two"),
        ({"$not": {"$or": [{"n": 1}, {"n": None}]}, "tags": "old"}, "three"),
    ],
    ids=str,
)
def test_every_operator_by_hand(wanted: dict[str, Any], ids: str) -> None:
    writer = empty_writer()
    writer.upsert(batch(list(DOCUMENTS.items())))
    assert found(writer, wanted) == set(ids.split())
    writer.connection.close()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], r"filter: \[\] is no object"),
        ({}, "an object without any condition; leave the filter out to search everything"),
        ({"$not": {}}, "an object without any condition"),
        ({"": 1}, "'' is no name of a field"),
        ({1: 1}, "1 is no name of a field"),
        ({"$and": []}, r"\$and has \[\]; a list of filters expected"),
        ({"$or": {"a": 1}}, r"\$or has {'a': 1}; a list of filters expected"),
        ({"$or": [1]}, "1 is no object"),
        ({"$nor": [{"a": 1}]}, r"unknown operator '\$nor'; known here: \$and, \$or, \$not"),
        ({"a": {}}, r"'a' has no operator; known: \$eq"),
        ({"a": {"$regex": "x"}}, r"'a': unknown operator '\$regex'; known: \$eq"),
        ({"a": {"b": 1}}, "'a': unknown operator 'b'"),
        ({"a": {"$in": "x"}}, r"'a': \$in has 'x'; a list expected"),
        (
            {"a": {"$eq": [1]}},
            r"'a' is compared with \[1\]; a string, a number, true, false or null expected",
        ),
        ({"a": [{"b": 1}]}, "'a' is compared with {'b': 1}"),
        ({"a": float("nan")}, "'a' is compared with nan"),
        ({"a": {"$gt": float("inf")}}, "'a' is compared with inf"),
        ({"a": 10**400}, r"'a' is compared with 10+\.\.\.0+; a string, a number"),
        ({"a": "x\ud800"}, "'a' is compared with text that holds a lone surrogate at character 1"),
        ({"a": {"$gt": "x\ud800"}}, "'a' is compared with text that holds a lone surrogate at character 1"),
        ({"a": {"$exists": 1}}, r"'a': \$exists has 1; true or false expected"),
        ({"a": {"$gt": None}}, r"'a': the bounds {'\$gt': None} must be numbers, or all strings"),
        ({"a": {"$gt": True}}, "must be numbers, or all strings"),
        ({"a": {"$gt": 1, "$lt": "2"}}, "must be numbers, or all strings"),
        ({"a": {"$gt": 1, "$gte": 2}}, r"'a': give \$gt or \$gte, not both"),
        ({"a": {"$lt": 1, "$lte": 2}}, r"give \$lt or \$lte, not both"),
        ({"a": {"$in": [0] * 10_001}}, r"'a': \$in has 10001 values; the limit is 10000 in all"),
        (
            {"a": {"$in": [0] * 6_000}, "$not": {"b": {"$nin": [0] * 4_001}}},
            r"'b': \$nin has 4001 values, and others before it 6000; the limit is 10000 in all",
        ),
        ({"$or": [{"a": 1}] * 65}, "more than 64 conditions"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_malformed_filters_are_refused_with_what_is_wrong(wanted: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse_filter(wanted)
    assert caught.value.param == "filter"
    assert caught.value.message.startswith("filter: ")


def test_message_about_a_huge_value_stays_short() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (["x"] * 100_000, "x" * 10_000_000, deep):
        for wanted in ({"a": {"$eq": [value]}}, {"$and": value}, {"a": {"$in": {"b": value}}}):
            with pytest.raises(InvalidInputError) as caught:
                parse_filter(wanted)
            assert len(caught.value.message) < 200


def test_nesting_has_a_limit() -> None:
    wanted: dict[str, Any] = {"a": 1}
    for _ in range(16):
        wanted = {"$not": wanted}
    parse_filter(wanted)
    with pytest.raises(InvalidInputError, match="nested more than 16 deep"):
        parse_filter({"$and": [wanted]})
    for _ in range(5_000):
        wanted = {"$or": [wanted]}
    with pytest.raises(InvalidInputError, match="nested more than 16 deep"):
        parse_filter(wanted)


def test_largest_filter_is_answered() -> None:
    writer = empty_writer()
    writer.upsert(batch([(str(number), {"a": number, "b": f"s{number}"}) for number in range(300)]))
    assert found(writer, {"a": {"$in": list(range(5, 10_005))}}) == {str(n) for n in range(5, 300)}
    many = {"a": {"$in": list(range(5, 5_005))}, "b": {"$nin": [f"s{n}" for n in range(5_800) if n % 7]}}
    assert found(writer, many) == {str(n) for n in range(5, 300) if n % 7 == 0}
    either = {"$or": [{"a": number} for number in range(64)]}
    assert found(writer, either) == {str(n) for n in range(64)}
    writer.connection.close()


def test_lists_of_any_length_are_few_statements_that_find_the_same() -> None:
    writer = empty_writer()
    writer.upsert(batch([(str(number), {"a": None if number == 0 else number}) for number in range(70)]))
    statements = set()
    for count in range(1, 70):
        wanted = parse_filter({"a": {"$in": list(range(1, count + 1))}})
        assert isinstance(wanted, OneOf)
        statements.add(_condition_sql(wanted)[0])
        assert found(writer, {"a": {"$in": list(range(1, count + 1))}}) == {
            str(n) for n in range(1, min(count, 69) + 1)
        }
    assert len(statements) == 8, "of 1, 2, 4 … 128 values"
    writer.connection.close()


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"no document has a field 'yaer'; did you mean 'year'\?"):
        check_fields(parse_filter({"$not": {"yaer": 1}}), ["source", "year"])
    with pytest.raises(InvalidInputError, match="no document has a field 'zzz'; known: source, year"):
        check_fields(parse_filter({"year": 1, "$or": [{"source": 1}, {"zzz": 1}]}), ["year", "source"])
    check_fields(parse_filter({"year": 1, "source": {"$exists": False}}), ["year", "source"])


def test_numbers_are_compared_whatever_their_spelling() -> None:
    rng = np.random.default_rng(0)
    values = [float(value) for value in rng.standard_normal(80) * 10.0 ** rng.integers(-300, 300, 80)]
    writer = empty_writer()
    writer.upsert(batch([(str(number), {"x": value}) for number, value in enumerate(values)]))
    for number, value in enumerate(values):
        assert found(writer, {"x": {"$in": [value, "no"]}}) == {str(number)}
    middle = sorted(values)[40]
    assert found(writer, {"x": {"$lt": middle}}) == {
        str(n) for n, value in enumerate(values) if value < middle
    }
    writer.connection.close()


def test_text_is_compared_whole_whatever_it_holds() -> None:
    texts = ["a", "a\0", "a\0b", "\0", "", "ä", "a\u0308", "'", '"', "%", "a" * 5000, "\U0001f600", "[1]"]
    writer = empty_writer()
    writer.upsert(batch([(str(number), {"s\0é": text}) for number, text in enumerate(texts)]))
    for number, text in enumerate(texts):
        assert found(writer, {"s\0é": text}) == {str(number)}
        assert found(writer, {"s\0é": {"$in": [text, "no", 1]}}) == {str(number)}
        larger = {str(place) for place, other in enumerate(texts) if other > text}
        assert found(writer, {"s\0é": {"$gt": text}}) == larger
    writer.connection.close()


@pytest.fixture
def vectors_only(tmp_path: Path) -> Iterator[Collection]:
    with Collection(tmp_path / "c", options=CollectionOptions(dimension=2)) as opened:
        yield opened


def own(id_: str, metadata: dict[str, Any] | None, language: str = "en") -> dict[str, Any]:
    return {"id": id_, "text": "", "language": language, "metadata": metadata, "vector": [1.0, int(id_[1:])]}


def ids(collection: Collection, wanted: dict[str, Any], **options: Any) -> set[str]:
    return {hit.id for hit in collection.search_vector([1, 0], filter=wanted, top_k=1000, **options)}


def test_search_never_sees_a_filter_of_an_older_moment(vectors_only: Collection) -> None:
    """The same filter before and after each change: what was derived from it is not served again."""
    collection = vectors_only
    collection.upsert([own(f"d{n}", {"n": n % 3}) for n in range(30)])
    wanted = {"n": {"$gte": 2}}
    expected = {f"d{n}" for n in range(2, 30, 3)}
    for change in ("", "update", "", "delete", "build", "", "update", "reuse"):
        if change == "update":
            collection.upsert([own("d2", {"n": 0}), own("d3", {"n": 2}), own("d90", {"n": 2})])
            expected = expected - {"d2"} | {"d3", "d90"}
        elif change == "delete":
            collection.delete(["d5", "d90"])
            expected -= {"d5", "d90"}
        elif change == "build":
            collection.build_index()
        elif change == "reuse":
            assert collection.delete_where(wanted) == len(expected)
            collection.upsert([own("d5", {"n": 2})])
            expected = {"d5"}
        assert ids(collection, wanted) == expected, change
        assert ids(collection, {"$not": wanted}) == {d.id for d in collection.documents()} - expected
        assert {d.id for d in collection.documents(filter=wanted)} == expected
        assert ids(collection, wanted, languages=["de"]) == set()
    with Collection(collection.path) as again:
        assert ids(again, wanted) == expected


def test_filters_reach_base_delta_and_what_was_replaced(vectors_only: Collection) -> None:
    collection = vectors_only
    collection.upsert([own(f"d{n}", {"side": "base", "n": n}, ["en", "de"][n % 2]) for n in range(20)])
    collection.build_index()
    collection.upsert([own(f"d{n}", {"side": "delta", "n": n}) for n in range(15, 25)])
    collection.delete(["d0", "d24"])
    assert ids(collection, {"side": "base"}) == {f"d{n}" for n in range(1, 15)}
    assert ids(collection, {"side": "delta"}) == {f"d{n}" for n in range(15, 24)}
    assert ids(collection, {"n": {"$gt": 10}, "side": "base"}, languages=["de"]) == {"d11", "d13"}
    assert ids(collection, {"n": {"$lt": 3}}) == {"d1", "d2"}


def test_more_filters_than_are_kept_stay_right_in_many_threads(vectors_only: Collection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    vectors_only.upsert([own(f"d{n}", {"n": n}) for n in range(80)])

    def asked(number: int) -> bool:
        return ids(vectors_only, {"n": number % 80}) == {f"d{number % 80}"}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(asked, range(200)))
