"""A search by meaning, by words, or both, equals brute force over all documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, SearchOptions
from embedsvc.collections.views import View
from embedsvc.encoder import Encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from tests.collections.conftest import DIMENSION
from tests.collections.oracle import QUERIES, Oracle, assert_same, check, corpus


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[tuple[Collection, Oracle]]:
    given = corpus(400)
    oracle = Oracle(encoder)
    oracle.upsert(given)
    with Collection(tmp_path_factory.mktemp("modes") / "help", encoder) as collection:
        collection.upsert(given)
        yield collection, oracle


MODES: list[dict[str, Any]] = [
    {},
    {"mode": "lexical"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "fusion": "score"},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 40, "offset": 7},
        {"offset": 399, "top_k": 5},
        {"offset": 5000},
        {"languages": ["sw", "ca"]},
        {"languages": ["fi"]},
        {"filter": {"year": {"$gte": 2020}, "source": "web"}},
        {"filter": {"source": "faq"}, "languages": ["de"]},
        {"prefer_language": "sw"},
        {"prefer_language": {"ca": 0.3, "yo": 0.02}},
        {"min_score": 0.02},
        {"group_by": "author.name"},
    ],
    ids=str,
)
def test_search_equals_brute_force(
    filled: tuple[Collection, Oracle], mode: dict[str, Any], options: dict[str, Any]
) -> None:
    check(*filled, **mode, **options)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("options", [{}, {"prefer_language": "yo"}, {"balance": "round_robin"}], ids=str)
def test_pages_are_parts_of_one_ranking(
    filled: tuple[Collection, Oracle], mode: dict[str, Any], options: dict[str, Any]
) -> None:
    collection, _ = filled
    whole = [hit.id for hit in collection.search("w1 w2 w3 w4", top_k=60, **mode, **options)]
    pages = [
        collection.search("w1 w2 w3 w4", top_k=10, offset=offset, **mode, **options)
        for offset in range(0, 60, 10)
    ]
    assert [hit.id for page in pages for hit in page] == whole


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("options", [{}, {"filter": {"source": "web"}}, {"balance": {"*": 2}}], ids=str)
def test_several_queries_are_answered_as_one_by_one(
    filled: tuple[Collection, Oracle], mode: dict[str, Any], options: dict[str, Any]
) -> None:
    collection, _ = filled
    asked = SearchOptions(**mode, **options, explain=True)
    queries = [*QUERIES, "unheard of"]
    together = collection.query(queries, options=asked)
    for query, result in zip(queries, together, strict=True):
        (alone,) = collection.query([query], options=asked)
        assert [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in alone.hits] == [
            (hit.id, hit.score) for hit in result.hits
        ]
        for one, other in zip(alone.hits, result.hits, strict=True):
            assert one.explanation == pytest.approx(other.explanation, abs=1e-6)


def test_no_queries_have_no_results(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    assert collection.query([]) == []
    assert collection.query(vectors=np.zeros((0, DIMENSION))) == []


def test_vector_is_searched_for_and_its_text_gives_the_words(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    vector = np.random.default_rng(3).standard_normal(DIMENSION).astype(np.float32)
    unit = vector / np.linalg.norm(vector)
    for mode in MODES:
        (result,) = collection.query(["w1 w2"], [vector * 17], SearchOptions(**mode))
        assert_same(result.hits, oracle.page("w1 w2", unit, **mode))
    assert_same(collection.search_vector(vector / 1e30), oracle.page(vector=unit))


def test_query_without_known_words_finds_by_words_what_it_cannot_by_meaning(collection: Collection) -> None:
    collection.upsert(
        [
            {"id": "?", "text": "unheard of things", "language": "en"},
            {"id": "e", "text": "east", "language": "en"},
        ]
    )
    assert collection.search("unheard") == []
    assert [hit.id for hit in collection.search("unheard", mode="lexical")] == ["?"]
    assert [hit.id for hit in collection.search("unheard", mode="hybrid")] == ["?"]
    assert [hit.id for hit in collection.search("unheard east", mode="hybrid", languages=["en"])] == [
        "e",
        "?",
    ]
    assert collection.search("...", mode="lexical") == []


def test_words_are_found_by_their_stem_in_the_language_of_the_query(collection: Collection) -> None:
    collection.upsert(
        [
            {"id": "a", "text": "The children were running home", "language": "en"},
            {"id": "b", "text": "Die Häuser am Fluss", "language": "de"},
            {"id": "c", "text": "我们在东京见面", "language": "zh"},
        ]
    )
    assert [h.id for h in collection.search("run", mode="lexical", query_language="en")] == ["a"]
    assert [h.id for h in collection.search("Haus", mode="lexical", query_language="de")] == ["b"]
    assert [h.id for h in collection.search("东京", mode="lexical")] == ["c"]


def test_facets_count_what_may_be_found(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    for options in (
        {},
        {"languages": ["sw", "fi"]},
        {"filter": {"year": {"$lt": 2018}}},
        {"filter": {"$not": {"source": "web"}}, "languages": ["en", "ca"]},
        {"mode": "lexical"},
    ):
        asked = SearchOptions(facets=True, top_k=1, **options)  # type: ignore[arg-type]
        one, two = collection.query(["w1", "w2"], options=asked)
        counted: dict[str, int] = {}
        allowed = {key: value for key, value in options.items() if key != "mode"}
        for found in oracle.found("w1", **allowed):
            counted[found.known.language] = counted.get(found.known.language, 0) + 1
        assert one.facets == two.facets == counted
    assert collection.query(["w1"])[0].facets is None


def test_facets_are_counted_once_for_a_filter_until_something_changes(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, real = [], View.languages_of

    def noted(view: View, mask: Any, languages: frozenset[str] | None) -> dict[str, int]:
        counted.append(languages)
        return real(view, mask, languages)

    def facets(year: int, *languages: str) -> dict[str, int]:
        options = SearchOptions(facets=True, filter={"year": year}, languages=languages or None)
        found = collection.query(["w1"], options=options)[0].facets
        assert found is not None
        told = dict(found)
        found.clear()  # it is the caller's own
        return told

    monkeypatch.setattr(View, "languages_of", noted)
    given = [
        {"id": f"d{n}", "text": "w1", "language": ["en", "de", "sw"][n % 3], "metadata": {"year": n % 2}}
        for n in range(12)
    ]
    collection.upsert(given)
    for _ in range(3):
        assert facets(0) == {"de": 2, "en": 2, "sw": 2}
        assert facets(0, "de", "sw") == facets(0, "sw", "de") == {"de": 2, "sw": 2}
        assert facets(1, "de") == {"de": 2}
    assert counted == [None, {"de", "sw"}, {"de"}]
    collection.delete(["d0"])
    assert facets(0) == {"de": 2, "sw": 2, "en": 1}
    assert len(counted) == 4


def test_explanation_gives_the_scores_that_were_fused(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    dense = {one.id: (rank, one.score) for rank, one in enumerate(oracle.found("w1 w2")[:100], 1)}
    words = {one.id: (rank, one.score) for rank, one in enumerate(oracle.found("w1 w2", mode="lexical"), 1)}
    hits = collection.search("w1 w2", mode="hybrid", explain=True)
    for hit in hits:
        wanted: dict[str, float] = {}
        for name, ranking in (("dense", dense), ("lexical", words)):
            if hit.id in ranking:
                wanted |= {f"{name}_rank": ranking[hit.id][0], name: ranking[hit.id][1]}
        assert hit.explanation == pytest.approx(wanted, abs=1e-5)
    assert any(len(hit.explanation or {}) == 4 for hit in hits)
    (result,) = collection.query(["w1 w2"], options=SearchOptions(mode="hybrid", explain=True))
    assert result.plan is not None
    assert result.plan["mode"] == "hybrid"
    assert result.plan["passages_outside_the_index"] == 400
    assert set(result.plan["timings_ms"]) == {"index", "words", "documents"}
    assert collection.search("w1")[0].explanation is None


def test_explanation_of_a_preferred_language_tells_cosine_from_boost(
    filled: tuple[Collection, Oracle],
) -> None:
    collection, oracle = filled
    cosines = {one.id: one.score for one in oracle.found("w7")}
    for hit in collection.search("w7", prefer_language={"sw": 0.3}, explain=True, top_k=30):
        assert hit.explanation is not None
        assert hit.explanation["dense"] == pytest.approx(cosines[hit.id], abs=1e-5)
        assert hit.score == pytest.approx(cosines[hit.id] + 0.3 * (hit.language == "sw"), abs=1e-5)


def test_empty_collection_finds_nothing_in_any_way(collection: Collection) -> None:
    for mode in MODES:
        for options in ({}, {"languages": ["en"]}, {"balance": "round_robin"}, {"balance": {"*": 3}}):
            (result,) = collection.query(["w1"], options=SearchOptions(facets=True, **mode, **options))  # type: ignore[arg-type]
            assert (result.hits, result.facets) == ([], {})
    with pytest.raises(InvalidInputError, match="no document has a field 'year'; known: none"):
        collection.search("w1", filter={"year": 1})
    with pytest.raises(InvalidInputError, match="group_by: no document has a field 'year'; known: none"):
        collection.search("w1", group_by="year")


@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        ([1.0] * 3, DimensionMismatchError, r"shape \(3,\); the collection has vectors of \(16,\)"),
        ([[1.0] * 16], DimensionMismatchError, r"shape \(1, 16\)"),
        ([1.0] * 15 + [float("nan")], InvalidInputError, r"vector\[15\] is nan; finite numbers expected"),
        ([float("-inf")] + [1.0] * 15, InvalidInputError, r"vector\[0\] is -inf"),
        (["a"] * 16, InvalidInputError, "the vector is no list of numbers"),
        (None, DimensionMismatchError, r"shape \(\)"),
    ],
)
def test_bad_query_vectors_are_named(
    collection: Collection, vector: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        collection.search_vector(vector)


def test_zero_vector_finds_nothing(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    assert collection.search_vector(np.zeros(DIMENSION)) == []
    both = np.stack([np.zeros(DIMENSION), np.eye(DIMENSION)[0]])
    assert [len(result.hits) for result in collection.query(vectors=both)] == [0, 10]


def test_what_a_query_lacks_is_named(collection: Collection) -> None:
    with pytest.raises(InvalidInputError, match="give a query or a vector"):
        collection.query()
    with pytest.raises(InvalidInputError, match="mode hybrid needs the text of the query"):
        collection.search_vector([1.0] * DIMENSION, mode="hybrid")
    with pytest.raises(InvalidInputError, match="2 queries and 1 vectors"):
        collection.query(["w1", "w2"], [[1.0] * DIMENSION])
    with pytest.raises(InvalidInputError, match=r"query\[1\] must be a text that is not empty"):
        collection.query(["w1", " "])
    with pytest.raises(InvalidInputError, match="queries must be a list of texts, not one text"):
        collection.query("w1")
    with pytest.raises(InvalidInputError, match="surrogate"):
        collection.search("w1 \ud800")
    with pytest.raises(InvalidInputError, match="surrogate"):
        collection.search("w1 \ud800", mode="lexical")


def test_words_are_looked_for_beyond_many_documents_that_may_not_be_returned(collection: Collection) -> None:
    """The best 600 matches are in another language, and some of the rest are filtered out."""
    collection.upsert(
        [{"id": f"e{n}", "text": "w1", "language": "en", "metadata": {"n": n}} for n in range(600)]
        + [
            {"id": f"s{n}", "text": "w1 " + "w2 " * (n + 2), "language": "sw", "metadata": {"n": n}}
            for n in range(9)
        ]
    )
    hits = collection.search("w1", mode="lexical", languages=["sw"], top_k=4)
    assert [hit.id for hit in hits] == ["s0", "s1", "s2", "s3"]
    hits = collection.search("w1", mode="lexical", languages=["sw"], filter={"n": {"$gte": 7}})
    assert [hit.id for hit in hits] == ["s7", "s8"]
