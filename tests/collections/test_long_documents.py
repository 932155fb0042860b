"""A document of several passages is one hit: its best passage, with offsets into its text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.encoder import Encoder
from tests.collections.oracle import QUERIES, Oracle, assert_same, check

OPTIONS = CollectionOptions(chunk_tokens=8, chunk_overlap=3)


def long_corpus(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Documents of 1 to 90 words, sentences of 3 to 7: one to thirty passages each."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        sentences = [
            " ".join(f"w{word}" for word in rng.integers(0, 300, rng.integers(3, 8))) + " ."
            for _ in range(rng.integers(1, 14))
        ]
        found.append(
            {
                "id": f"d{number}",
                "text": "  ".join(sentences),
                "language": str(rng.choice(["en", "de", "sw"], p=[0.7, 0.2, 0.1])),
                "metadata": {"n": number % 7},
            }
        )
    return found


@pytest.fixture(params=["delta", "base", "both"], scope="module")
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, encoder: Encoder
) -> Iterator[tuple[Collection, Oracle]]:
    given = long_corpus(60)
    oracle = Oracle(encoder, chunk_tokens=8, chunk_overlap=3)
    with Collection(tmp_path_factory.mktemp("long") / "long", encoder, options=OPTIONS) as collection:
        collection.upsert(given)
        oracle.upsert(given)
        if request.param != "delta":
            collection.build_index()
        if request.param == "both":
            later = long_corpus(75, seed=2)[50:]
            collection.upsert(later)
            oracle.upsert(later)
            collection.delete(["d3", "d55", "d70"])
            oracle.delete(["d3", "d55", "d70"])
        yield collection, oracle


def test_long_documents_equal_brute_force(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    assert collection.info().passages == sum(len(known.spans) for known in oracle.known.values()) > 150
    for options in (
        {"top_k": 1},
        {"top_k": 10},
        {"top_k": 200},
        {"top_k": 5, "offset": 50},
        {"languages": ["sw"], "top_k": 4},
        {"filter": {"n": {"$in": [1, 2]}}, "top_k": 7},
        {"balance": "round_robin"},
        {"mode": "hybrid"},
        {"mode": "lexical"},
        {"group_by": "n"},
        {"prefer_language": {"de": 0.2}},
    ):
        check(collection, oracle, **options)


def test_several_queries_of_different_depth_equal_one_by_one(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    for query, result in zip(QUERIES, collection.query(QUERIES), strict=True):
        assert_same(result.hits, oracle.page(query))


def test_passage_is_given_only_for_a_document_that_was_split(filled: tuple[Collection, Oracle]) -> None:
    collection, oracle = filled
    hits = collection.search("w1 w2", top_k=100)
    for hit in hits:
        assert (hit.passage is not None) == (len(oracle.known[hit.id].spans) > 1)
        if hit.passage is not None:
            assert (hit.passage.start, hit.passage.stop) in oracle.known[hit.id].spans
    assert {hit.passage is None for hit in hits} == {True, False}


def test_one_document_with_more_passages_than_hits_wanted_hides_no_other(
    tmp_path: Path, encoder: Encoder
) -> None:
    with Collection(tmp_path / "c", encoder, options=OPTIONS) as collection:
        collection.upsert(
            [
                {"id": "book", "text": "east east east east east east . " * 300, "language": "en"},
                {"id": "note", "text": "north north east", "language": "en"},
                {"id": "other", "text": "north", "language": "de"},
            ]
        )
        for build in (False, True):
            if build:
                collection.build_index()
            assert [hit.id for hit in collection.search("east", top_k=2)] == ["book", "note"]
            assert [hit.id for hit in collection.search("east", top_k=1, offset=2)] == ["other"]
            assert [hit.id for hit in collection.search("east", balance="round_robin")] == [
                "book",
                "other",
                "note",
            ]


def test_document_found_by_its_words_shows_the_passage_that_has_them(
    tmp_path: Path, encoder: Encoder
) -> None:
    text = "w1 w2 w3 w4 w5 w6 . w7 w8 unheard w9 w10 w11 . w12 w13 w14 w15 of w16 ."
    with Collection(
        tmp_path / "c", encoder, options=CollectionOptions(chunk_tokens=8, chunk_overlap=0)
    ) as collection:
        collection.upsert([{"id": "a", "text": text, "language": "en"}])
        for query, part in (("unheard", "w7 w8 unheard w9 w10 w11 ."), ("of", "w12 w13 w14 w15 of w16 .")):
            (hit,) = collection.search(query, mode="lexical")
            assert hit.passage is not None
            assert hit.passage.text == part == text[hit.passage.start : hit.passage.stop]
            (hit,) = collection.search(query, mode="hybrid")
            assert hit.passage is not None
            assert hit.passage.text == part
