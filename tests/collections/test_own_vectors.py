"""Vectors that documents bring, of any length, with or without a model."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, CollectionOptions, Document
from embedsvc.encoder import Encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.search import unit_vector
from tests.collections.conftest import DIMENSION
from tests.collections.oracle import Oracle, assert_same, corpus

WIDTH = 24


def vectors_of(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Vectors of every length from 1e-30 to 1e30."""
    rng = np.random.default_rng(seed)
    lengths = 10.0 ** rng.uniform(-30, 30, (count, 1))
    return (rng.standard_normal((count, width)) * lengths).astype(np.float32)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Collection]:
    with Collection(tmp_path / "bare", options=CollectionOptions(dimension=WIDTH)) as opened:
        yield opened


def test_vectors_of_any_length_are_found_by_their_direction(bare: Collection) -> None:
    given = [
        {**document, "text": document["text"] if number % 3 else "", "vector": vector}
        for number, (document, vector) in enumerate(zip(corpus(200), vectors_of(200, WIDTH), strict=True))
    ]
    oracle = Oracle()
    bare.upsert(given)
    oracle.upsert(given)
    asked = np.random.default_rng(9).standard_normal((5, WIDTH))
    for built in (False, True):
        if built:
            bare.build_index()
        for vector in asked:
            unit = (vector / np.linalg.norm(vector)).astype(np.float32)
            for options in ({}, {"languages": ["sw"]}, {"filter": {"source": "web"}}, {"balance": {"*": 2}}):
                assert_same(
                    bare.search_vector(vector * 1e-20, **options), oracle.page(vector=unit, **options)
                )
    for result, vector in zip(bare.query(vectors=asked * 1e30), asked, strict=True):
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        assert_same(result.hits, oracle.page(vector=unit))


def test_vectors_come_back_as_unit_vectors_in_any_spelling(bare: Collection) -> None:
    vector = np.arange(1, WIDTH + 1, dtype=np.float32)
    spellings: list[Any] = [
        vector,
        vector.astype(np.float64) * 1e300,
        vector.tolist(),
        base64.b64encode((vector / 7).astype("<f4").tobytes()).decode(),
        vector.astype(np.int64),
    ]
    bare.upsert([{"id": f"d{n}", "text": "", "vector": given} for n, given in enumerate(spellings) if n != 1])
    with pytest.raises(InvalidInputError, match=r"documents\[0\].vector\[0\] is inf"):
        bare.upsert([{"id": "d1", "text": "", "vector": spellings[1]}])
    for id_ in ("d0", "d2", "d3", "d4"):
        kept = bare.get(id_, vector=True).vector
        assert kept is not None
        assert kept == pytest.approx(vector / np.linalg.norm(vector), abs=1e-3)
        assert np.linalg.norm(kept) == pytest.approx(1, abs=1e-6)
    assert bare.languages() == {"und": 4}


def test_collection_without_a_model_finds_texts_by_words(bare: Collection) -> None:
    bare.upsert(
        [
            {"id": "a", "text": "red apple", "language": "en", "vector": np.eye(WIDTH)[0]},
            {"id": "b", "text": "", "language": "en", "vector": np.eye(WIDTH)[1]},
        ]
    )
    assert [hit.id for hit in bare.search("apples", mode="lexical", query_language="en")] == ["a"]
    both = bare.query(["apple"], [np.eye(WIDTH)[1]], None)
    assert [hit.id for hit in both[0].hits] == ["b", "a"]
    assert bare.search_vector(np.eye(WIDTH)[1])[0].text == ""
    with pytest.raises(InvalidInputError, match="has no model: documents and queries bring a vector of 24"):
        bare.search("apple")
    with pytest.raises(InvalidInputError, match="has no model"):
        bare.search("apple", mode="hybrid")
    with pytest.raises(
        InvalidInputError, match=r"documents\[0\] has no vector, and the collection has no model"
    ):
        bare.upsert([{"id": "c", "text": "x"}])


def test_documents_with_and_without_vectors_mix(tmp_path: Path, encoder: Encoder) -> None:
    given = corpus(120)
    for number, vector in zip(range(0, 120, 4), vectors_of(30, DIMENSION), strict=True):
        given[number]["vector"] = vector
    given[1] = {**given[1], "text": "unheard of"}
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(given)
        oracle = Oracle(encoder)
        oracle.upsert(given)
        for built in (False, True):
            if built:
                collection.build_index()
            for query in ("w1 w2", "w3"):
                assert_same(collection.search(query, top_k=120), oracle.page(query, top_k=120))
                assert_same(collection.search(query, mode="hybrid"), oracle.page(query, mode="hybrid"))
        collection.upsert([{**given[0], "vector": None, "text": "w1 w2"}])
        assert collection.search("w1 w2")[0].id == given[0]["id"], (
            "the model's vector takes the place of its own"
        )


@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        (
            [1.0] * 3,
            DimensionMismatchError,
            r"documents\[1\].vector has 3 numbers; the collection has vectors of 24",
        ),
        ([0.0] * WIDTH, InvalidInputError, r"documents\[1\].vector is all zeros; it has no direction"),
        ([float("nan")] * WIDTH, InvalidInputError, r"documents\[1\].vector\[0\] is nan"),
        ([1.0] * 23 + [float("inf")], InvalidInputError, r"documents\[1\].vector\[23\] is inf"),
        ([], InvalidInputError, r"documents\[1\].vector is empty"),
        (np.ones((2, WIDTH)), InvalidInputError, r"documents\[1\].vector has 2 dimensions"),
    ],
    ids=range(6),
)
def test_bad_vectors_are_named_and_nothing_is_written(
    bare: Collection, vector: Any, error: type[Exception], message: str
) -> None:
    good = Document("a", "", "en", None, np.ones(WIDTH, np.float32))
    with pytest.raises(error, match=message):
        bare.upsert([good, {"id": "b", "text": "x", "language": "en", "vector": vector}])
    assert bare.count == 0


def test_query_vector_too_long_for_float32_squares_is_only_scaled() -> None:
    """The squares overflow, the vector does not; no warning reaches the log."""
    vector = np.array([3e30, 0, -4e30], np.float32)
    assert unit_vector(vector, 3).tolist() == pytest.approx([0.6, 0, -0.8])
