"""Debiasing is `fit_debias` of what the last build saw, applied by hand to all documents and to queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from indexing import Debias, ParallelPairs, fit_debias
from tests.collections.conftest import DIMENSION
from tests.collections.oracle import Oracle, assert_same, corpus


def cached(debias: Debias) -> Any:
    """`moved`, each vector once."""
    known: dict[tuple[bytes, str], Any] = {}

    def once(vector: Any, language: str) -> Any:
        key = vector.tobytes(), language
        if key not in known:
            known[key] = moved(debias, vector, language)
        return known[key]

    return once


METHODS: list[Literal["center", "lir"]] = ["center", "lir"]


def fitted(oracle: Oracle, method: Literal["center", "lir"]) -> Debias:
    """What fits the documents that the oracle holds now, all of them."""
    rows = [
        (own, known.language) for known in oracle.known.values() for own in known.vectors if own is not None
    ]
    return fit_debias(method, np.array([own for own, _ in rows]), np.array([code for _, code in rows]))


def moved(debias: Debias, vector: Any, language: str) -> Any:
    return debias.apply(np.asarray(vector, np.float32)[None], np.array([language]))[0]


@pytest.mark.parametrize("method", METHODS)
def test_collection_equals_debiasing_by_hand(tmp_path: Path, encoder: Encoder, method: Any) -> None:
    oracle = Oracle(encoder)
    queries = ["w1 w2", "w5 w6 w7"]
    with Collection(tmp_path / "c", encoder, options=CollectionOptions(debias=method)) as collection:
        collection.upsert(corpus(200))
        oracle.upsert(corpus(200))
        for query in queries:
            assert_same(collection.search(query), oracle.page(query))  # nothing is fitted before a build
        collection.build_index()
        debias = fitted(oracle, method)
        oracle.moved = cached(debias)

        def check(opened: Collection) -> None:
            for query in queries:
                for code in ("de", "fi", None):
                    vector = moved(debias, encoder.encode([query])[0], code or "und")
                    for options in (
                        {},
                        {"languages": ["ca", "sw"]},
                        {"filter": {"source": "web"}, "top_k": 40},
                    ):
                        hits = opened.search(query, query_language=code, **options)
                        assert_same(hits, oracle.page(query, vector, **options), within=1e-4)

        check(collection)
        later = [*corpus(40, seed=4, first=190), {"id": "new", "text": "w1 w3", "language": "fi"}]
        collection.upsert(later)
        oracle.upsert(later)
        check(collection)
        assert collection.info().options["debias"] == method
    with Collection(tmp_path / "c", encoder, create=False) as again:
        check(again)
        again.build_index()
        debias = fitted(oracle, method)
        oracle.moved = cached(debias)
        check(again)


@pytest.mark.parametrize("method", METHODS)
def test_queries_without_a_direction_find_nothing(tmp_path: Path, encoder: Encoder, method: Any) -> None:
    with Collection(tmp_path / "c", encoder, options=CollectionOptions(debias=method)) as collection:
        collection.upsert(corpus(60))
        collection.upsert([{"id": "?", "text": "unheard of", "language": "en"}])
        collection.build_index()
        assert collection.search("unheard") == []
        assert [hit.id for hit in collection.search("unheard", mode="hybrid")] == ["?"]
        assert collection.search_vector(np.zeros(DIMENSION)) == []
        both = collection.query(["unheard", "w1 w2"])
        assert [len(result.hits) for result in both] == [0, 10]
        assert collection.query([]) == []
        (alone,) = collection.query(["w1 w2"])
        assert [hit.id for hit in both[1].hits] == [hit.id for hit in alone.hits]


def test_centring_brings_translations_of_another_language_up(tmp_path: Path) -> None:
    """Two languages on opposite sides of the space: by cosine alone a query finds its own side only."""
    rng = np.random.default_rng(0)
    meanings = rng.standard_normal((150, DIMENSION - 1))
    sides = {"en": 3.0, "de": -3.0}
    given = [
        {
            "id": f"{code}{number}",
            "text": "",
            "language": code,
            "vector": np.append(meaning + rng.standard_normal(DIMENSION - 1) * 0.1, side),
        }
        for code, side in sides.items()
        for number, meaning in enumerate(meanings)
    ]

    def translations_found(method: Any) -> int:
        options = CollectionOptions(dimension=DIMENSION, debias=method)
        with Collection(tmp_path / method, options=options) as collection:
            collection.upsert(given)
            collection.build_index()
            return sum(
                f"de{number}" in [hit.id for hit in collection.search_vector(
                    given[number]["vector"], query_language="en", top_k=2
                )]
                for number in range(0, 150, 5)
            )  # fmt: skip

    assert translations_found("none") <= 3
    assert translations_found("center") >= 20


def test_shift_is_learnt_from_documents_with_the_same_mark(tmp_path: Path, encoder: Encoder) -> None:
    """English has most translations and is the pivot; marks of one language, or null, teach nothing."""
    marks: dict[str, list[Any]] = {
        "en": ["a", "b", "c", 7, None, "alone", "d"],
        "de": ["b", "a", 7.0, None, "d"],
        "sw": ["c", "7", "of sw alone", "d", "a"],
        "yo": ["of yo", "of yo"],
    }
    given = [
        {
            "id": f"{code}{number}",
            "text": f"w{number} w{number * 3 + 7} w{len(code) * ord(code[0]) % 300}",
            "language": code,
            "metadata": {"page": {"of": mark}},
        }
        for code, own in marks.items()
        for number, mark in enumerate(own)
    ]
    options = CollectionOptions(debias="shift", debias_pairs="page.of")
    oracle = Oracle(encoder)
    oracle.upsert(given)
    vectors = {id_: known.vectors[0] for id_, known in oracle.known.items()}
    pairs = [("de1", "en0"), ("de0", "en1"), ("de2", "en3"), ("de4", "en6")]
    pairs += [("sw0", "en2"), ("sw3", "en6"), ("sw4", "en0")]
    debias = fit_debias(
        "shift",
        np.array(list(vectors.values())),
        np.array([known.language for known in oracle.known.values()]),
        pairs=ParallelPairs(
            np.array([vectors[one] for one, _ in pairs]),
            np.array([one[:2] for one, _ in pairs]),
            np.array([vectors[other] for _, other in pairs]),
            "en",
        ),
    )
    assert debias.unchanged == ("yo",)
    with Collection(tmp_path / "c", encoder, options=options) as collection:
        collection.upsert(given)
        collection.build_index()
        oracle.moved = lambda vector, language: moved(debias, vector, language)
        for opened in (collection, Collection(tmp_path / "c", encoder, create=False)):
            assert_same(opened.search("w1 w3", query_language="de"), oracle.page("w1 w3"), within=1e-4)
            later = [{"id": "new", "text": "w1 w2", "language": "sw", "metadata": None}]
            opened.upsert(later)
            oracle.upsert(later)
            assert_same(opened.search("w1 w3", top_k=30), oracle.page("w1 w3", top_k=30), within=1e-4)
        opened.close()
        kept = moved(debias, vectors["de0"], "de")
        assert np.abs(kept - vectors["de0"]).max() > 1e-3, "the shift moves something"


def test_shift_without_translations_leaves_all_as_it_is(tmp_path: Path, encoder: Encoder) -> None:
    oracle = Oracle(encoder)
    options = CollectionOptions(debias="shift", debias_pairs="year")
    with Collection(tmp_path / "c", encoder, options=options) as collection:
        for count in (0, 1):
            given = corpus(count)
            collection.upsert(given)
            oracle.upsert(given)
            collection.build_index()
            assert_same(collection.search("w1 w2"), oracle.page("w1 w2"))
        assert collection._index._state is not None
        assert collection._index._state.base.is_saved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"debias": "shift"},
            "debias 'shift' needs debias_pairs, the metadata field that marks translations",
        ),
        ({"debias": "center", "debias_pairs": "x"}, "debias 'center' takes no debias_pairs"),
        ({"debias_pairs": "x"}, "debias 'none' takes no debias_pairs"),
        (
            {"debias": "shift", "debias_pairs": ""},
            "debias_pairs is ''; the name of a metadata field expected",
        ),
        ({"debias": "shift", "debias_pairs": 5}, "debias_pairs is 5"),
    ],
    ids=range(5),
)
def test_shift_needs_to_know_translations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CollectionOptions(**options)
