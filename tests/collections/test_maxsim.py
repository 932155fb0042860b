"""Candidates scored anew: by token vectors, and by a cross-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, CollectionOptions, SearchOptions
from embedsvc.collections.maxsim import TokenScorer, max_sim
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.reranker import Reranker, load_reranker
from tests.collections.conftest import DIMENSION
from tests.collections.oracle import Oracle, corpus
from tests.tiny_rerankers import counted_logit, write_counting_reranker

TOKENS = CollectionOptions(token_vectors=True)


def test_max_sim_by_hand() -> None:
    query = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    passage = np.array([[1, 0], [0.8, 0.6]], np.float32)
    assert max_sim(query, passage) == pytest.approx((1 + 0.6 + 0.96) / 3)
    assert max_sim(query, query) == pytest.approx(1)
    assert max_sim(query, -query[:1]) == pytest.approx((-1 + 0 - 0.6) / 3)
    assert max_sim(query[:0], passage) == max_sim(query, passage[:0]) == 0


def test_stored_are_unit_float16_of_every_token(encoder: Encoder) -> None:
    one, two, none = TokenScorer(encoder).stored(["east north east", "w7", "unheard"])
    assert len(one) == 3 * DIMENSION * 2
    tokens = np.frombuffer(one, "<f2").reshape(3, DIMENSION)
    assert (tokens[:, :2] == [[1, 0], [0, 1], [1, 0]]).all()
    assert np.linalg.norm(np.frombuffer(two, "<f2").astype(float)) == pytest.approx(1, abs=1e-3)
    assert set(np.frombuffer(none, "<f2")) <= {0}


def by_hand(encoder: Encoder, query: str, text: str) -> float:
    """Mean over the words of the query of the best cosine with a word of the text."""
    words = [encoder.encode([word])[0] for word in query.split()]
    kept = [encoder.encode([word])[0] for word in text.split()]
    return float(np.mean([max(float(one @ other) for other in kept) for one in words]))


@pytest.mark.parametrize("built", [False, True])
def test_the_best_candidates_are_ordered_by_their_tokens(
    tmp_path: Path, encoder: Encoder, built: bool
) -> None:
    given = corpus(120)
    oracle = Oracle(encoder)
    oracle.upsert(given)
    with Collection(tmp_path / "c", encoder, options=TOKENS) as collection:
        collection.upsert(given)
        if built:
            collection.build_index()
        for query in ("w1 w2 w3", "w9"):
            for mode in ("dense", "lexical", "hybrid"):
                candidates = oracle.page(query, mode=mode, top_k=30)
                wanted = sorted(
                    ((by_hand(encoder, query, one.known.text), one.id) for one in candidates), reverse=True
                )
                hits = collection.search(query, mode=mode, maxsim=30, top_k=8, offset=1)
                assert [hit.score for hit in hits] == pytest.approx(
                    [score for score, _ in wanted[1:9]], abs=2e-3
                )
                for hit in hits:
                    assert hit.score == pytest.approx(by_hand(encoder, query, hit.text), abs=2e-3)
        least = collection.search("w1 w2", maxsim=20)[4].score
        assert all(hit.score >= least for hit in collection.search("w1 w2", maxsim=20, min_score=least))
        (hit, *_) = collection.search("w1 w2 w3", maxsim=30, explain=True)
        assert hit.explanation is not None
        assert hit.explanation["maxsim"] == hit.score
        assert hit.explanation["maxsim_rank"] == 1
        assert {"dense", "dense_rank"} <= hit.explanation.keys()


def test_passages_are_scored_each_by_its_own_tokens(tmp_path: Path, encoder: Encoder) -> None:
    options = CollectionOptions(token_vectors=True, chunk_tokens=8, chunk_overlap=0)
    text = "w1 w2 w3 w4 w5 . w6 w7 w8 w9 w10 . east north w11 w12 w13 ."
    with Collection(tmp_path / "c", encoder, options=options) as collection:
        collection.upsert(
            [{"id": "a", "text": text, "language": "en"}, {"id": "b", "text": "north", "language": "en"}]
        )
        hit = next(hit for hit in collection.search("east", maxsim=10) if hit.id == "a")
        assert hit.passage is not None
        assert "east" in hit.passage.text
        assert hit.score == pytest.approx(1, abs=1e-3)
        collection.upsert([{"id": "a", "text": "w5 w6", "language": "en"}])
        assert collection.delete(["b"]) == 1
        with collection.store.reading() as view:
            assert view.number("SELECT count(*) FROM tokens") == 1
        assert [hit.id for hit in collection.search("w5", maxsim=10)] == ["a"]


def test_maxsim_needs_token_vectors_and_text(
    tmp_path: Path, encoder: Encoder, collection: Collection
) -> None:
    collection.upsert(corpus(3))
    with pytest.raises(
        InvalidInputError, match="maxsim needs token vectors, and collection 'help' was made without"
    ):
        collection.search("w1", maxsim=10)
    with Collection(tmp_path / "c", encoder, options=TOKENS) as kept:
        kept.upsert(corpus(3))
        with pytest.raises(InvalidInputError, match="rerank and maxsim needs the text of the query"):
            kept.search_vector(np.ones(DIMENSION), maxsim=10)
        with pytest.raises(
            InvalidInputError, match=r"documents\[1\] brings a vector; a collection with token_vectors"
        ):
            kept.upsert([{"id": "a", "text": "w1"}, {"id": "b", "text": "w1", "vector": [1.0] * DIMENSION}])
        (result,) = kept.query(["w1"], [np.ones(DIMENSION)], SearchOptions(maxsim=10))
        assert len(result.hits) == 3
        with kept.store.writing() as writer:
            writer.connection.execute("DELETE FROM tokens WHERE passage = 2")
        with pytest.raises(StorageError, match="passage 2 has no token vectors of 16 float16 each"):
            kept.search("w1 w2 w3", maxsim=10)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return load_reranker(write_counting_reranker(tmp_path_factory.mktemp("rerankers") / "counting"))


def logistic(logit: float) -> float:
    return 1 / (1 + float(np.exp(-logit)))


def small_corpus() -> list[dict[str, Any]]:
    """Texts of words that the reranker knows, short enough for it to read them whole."""
    rng = np.random.default_rng(6)
    return [
        {
            "id": f"d{n}",
            "text": " ".join(f"w{w}" for w in rng.integers(0, 40, rng.integers(1, 9))),
            "language": "en",
        }
        for n in range(60)
    ]


def test_the_best_candidates_are_ordered_by_the_cross_encoder(
    tmp_path: Path, encoder: Encoder, reranker: Reranker
) -> None:
    given = small_corpus()
    oracle = Oracle(encoder)
    oracle.upsert(given)
    with Collection(tmp_path / "c", encoder, reranker=reranker) as collection:
        collection.upsert(given)
        for mode in ("dense", "lexical", "hybrid"):
            candidates = oracle.page("w1 w2", mode=mode, top_k=20)
            scores = {
                one.id: logistic(counted_logit(["w1", "w2"], one.known.text.split())) for one in candidates
            }
            order = sorted(candidates, key=lambda one: (-np.float32(scores[one.id]), one.known.place))
            hits = collection.search("w1 w2", mode=mode, rerank=20, top_k=6, offset=2)
            assert [hit.score for hit in hits] == pytest.approx(
                [scores[one.id] for one in order[2:8]], abs=1e-5
            )
            assert {hit.id for hit in hits} <= set(scores)
        (result,) = collection.query(["w1 w2"], options=SearchOptions(rerank=20, explain=True))
        assert result.plan is not None
        assert "rerank" in result.plan["timings_ms"]
        assert result.hits[0].explanation is not None
        assert result.hits[0].explanation["rerank"] == result.hits[0].score
        found = collection.search("w1 w2", rerank=60, top_k=60, min_score=0.5)
        assert 0 < len(found) < 60
        assert all(hit.score >= 0.5 for hit in found)
        assert collection.search("unheard", rerank=20) == []


def test_maxsim_chooses_what_the_cross_encoder_reads(
    tmp_path: Path, encoder: Encoder, reranker: Reranker
) -> None:
    given = small_corpus()
    with Collection(tmp_path / "c", encoder, reranker=reranker, options=TOKENS) as collection:
        collection.upsert(given)
        chosen = {hit.id for hit in collection.search("w1 w2", maxsim=40, top_k=12)}
        hits = collection.search("w1 w2", maxsim=40, rerank=12, top_k=12)
        assert {hit.id for hit in hits} == chosen
        scores = [logistic(counted_logit(["w1", "w2"], hit.text.split())) for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
        assert scores == sorted(scores, reverse=True)


def test_rerank_without_a_cross_encoder_says_what_to_do(collection: Collection) -> None:
    with pytest.raises(InvalidInputError, match="rerank needs a cross-encoder, and none is configured"):
        collection.search("w1", rerank=10)
    with pytest.raises(InvalidInputError, match="rerank and maxsim needs the text of the query"):
        collection.search_vector(np.ones(DIMENSION), rerank=10)
