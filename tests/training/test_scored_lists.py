"""Queries with scored passages: how they are read, scored by a reranker, and drawn in several languages."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.reranker import ScoreOptions, Scoring
from training.data import TokenBags
from training.list_sampling import ListSampler, ListShape, ListSource
from training.sampling_config import Mixing
from training.score_cache import ScoreCache
from training.scored_lists import ScoredLists, read_lists

LINES: list[dict[str, Any]] = [
    {"query": "q0", "passages": ["a", {"eng": "b", "deu": "B"}, {"deu": "C"}], "scores": [1, -2.5, 3]},
    {"query": "q1", "passages": [{"deu": "B"}, "d"], "scores": [0.5, 4]},
]


def read(folder: Path, *lines: dict[str, Any], least: int = 2) -> ScoredLists:
    path = folder / "lists.jsonl"
    path.write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return read_lists([path], least=least)


def test_texts_stand_once_and_passages_know_their_languages(tmp_path: Path) -> None:
    lists = read(tmp_path, *LINES)
    assert lists.queries == ["q0", "q1"]
    assert lists.texts == ["a", "b", "B", "C", "d"]
    assert lists.languages == ["", "eng", "deu"]
    assert lists.starts.tolist() == [0, 3, 5]
    assert lists.text.tolist() == [[0, -1, -1], [-1, 1, 2], [-1, -1, 3], [-1, -1, 2], [4, -1, -1]]
    assert lists.scores.tolist() == [1, -2.5, 3, 0.5, 4]
    assert list(lists.lists()) == [("q0", ["a", "b", "C"]), ("q1", ["B", "d"])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": " "}, "line 1: query is ' '"),
        ({"passages": ["a"]}, "line 1: passages must be a list of at least 2"),
        ({"passages": ["a", 5, "c"]}, r"line 1: passages\[1\] is 5"),
        ({"passages": ["a", {"eng": ""}, "c"]}, r"line 1: passages\[1\]\['eng'\] is ''"),
        ({"scores": [1, 2]}, "line 1: scores must be a list of 3 numbers"),
        ({"scores": [1, 2, float("nan")]}, r"line 1: scores\[2\] = nan"),
        ({"scores": [1, True, 3]}, r"line 1: scores\[1\] = True"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(tmp_path, {**LINES[0], **change})


def test_an_empty_file_has_no_queries(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no queries in"):
        read(tmp_path)


class CountingReranker:
    """Scores by length; says what it was asked."""

    name, fingerprint = "counting", "f" * 16

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score_with_usage(self, query: str, texts: list[str], options: ScoreOptions) -> Scoring:
        assert options.raw
        self.asked.append(query)
        scores = np.array([10 * len(query) + len(text) for text in texts], np.float32)
        return Scoring(scores, [1] * len(texts), [False] * len(texts))


def test_scores_are_made_once_and_found_again(tmp_path: Path) -> None:
    reranker: Any = CountingReranker()
    lists = [("q", ["a", "bb"]), ("qq", ["a"])]
    assert ScoreCache(reranker, tmp_path).scores(lists).tolist() == [11, 12, 21]
    more = [("new", ["a"]), *lists, ("q", ["bb", "ccc"])]
    assert ScoreCache(reranker, tmp_path).scores(more).tolist() == [31, 11, 12, 21, 12, 13]
    assert reranker.asked == ["q", "qq", "new", "q"]
    assert ScoreCache(reranker, tmp_path).scores(more).tolist() == [31, 11, 12, 21, 12, 13]
    assert len(reranker.asked) == 4
    ScoreCache(reranker, tmp_path, max_text_tokens=5).scores(lists)
    assert len(reranker.asked) == 6  # texts cut elsewhere have other scores


def test_a_damaged_score_file_is_named(tmp_path: Path) -> None:
    reranker: Any = CountingReranker()
    cache = ScoreCache(reranker, tmp_path)
    cache.scores([("q", ["a"])])
    (damaged,) = tmp_path.rglob("*.npz")
    damaged.write_bytes(b"nothing")
    with pytest.raises(StorageError, match="damaged; remove it"):
        cache.scores([("q", ["a"])])


def bags(number: int, first: int) -> TokenBags:
    return TokenBags(np.arange(first, first + number, dtype=np.int32), np.arange(number + 1))


def source() -> ListSource:
    """Query q's passage p in language l is text 10 q + 2 p + l; passage 4 is in language 1 only."""
    text = np.array([[10 * q + 2 * p, 10 * q + 2 * p + 1] for q in range(2) for p in range(5)], np.int32)
    text[[4, 9], 0] = -1
    scores = np.array([0, 4, 1, 3, 2, 9, 5, 8, 6, 7], np.float32)
    keys = np.arange(2) + 100, np.arange(20) + 200
    return ListSource(bags(2, 1000), bags(20, 0), *keys, np.array([0, 5, 10]), text, scores)


def drawn(mixing: Mixing, size: int = 64, passages: int = 3, part: tuple[int, int] = (0, 1)) -> Any:
    shape = ListShape(size, passages, mixing)
    draws = lambda count, generator: generator.integers(0, 2, size=count)  # noqa: E731
    sampler = ListSampler(source(), draws, shape, seed=4, part=part)
    batch = sampler.batch(3)
    assert sampler.batch(3).texts.ids.tolist() == batch.texts.ids.tolist()
    ids = batch.texts.ids
    share = len(batch.pairs)
    best, rest = ids[share : 2 * share], ids[2 * share :].reshape(share, passages - 1)
    return batch, ids[:share] - 1000, np.concatenate([best[:, None], rest], axis=1)


@pytest.mark.parametrize("mixing", ["passages", "entries", "round_robin"])
def test_each_query_gets_its_own_passages_best_first_with_their_scores(mixing: Mixing) -> None:
    batch, queries, texts = drawn(mixing, 400)
    assert (queries == batch.pairs).all()
    assert (texts // 10 == queries[:, None]).all()
    passages = 5 * queries[:, None] + texts % 10 // 2
    assert (batch.scored.scores == source().scores[passages]).all()
    assert (np.diff(batch.scored.scores) < 0).all()
    assert len({tuple(row) for row in passages.tolist()}) == 20  # any 3 of the 5 of each query
    same = queries[:, None] == queries
    assert (batch.relations[same & ~np.eye(400, dtype=bool)] == 0).all()
    assert (batch.relations[~same] == -1).all()


def test_languages_are_mixed_as_asked() -> None:
    _, _, texts = drawn("passages")
    languages = texts % 2
    assert (languages[texts % 10 // 2 == 4] == 1).all()  # the only one it has
    assert Counter(languages[texts % 10 // 2 == 1].tolist()).keys() == {0, 1}
    assert (languages.min(axis=1) != languages.max(axis=1)).sum() > 20
    free = np.where(texts % 10 // 2 == 4, -1, texts % 2)

    _, _, texts = drawn("entries")
    free = np.where(texts % 10 // 2 == 4, -1, texts % 2)
    kinds = [set(row) - {-1} for row in free.tolist()]
    assert all(len(kind) == 1 for kind in kinds)
    assert {kind.pop() for kind in kinds} == {0, 1}


def test_round_robin_gives_each_query_once_in_every_language() -> None:
    batch, queries, texts = drawn("round_robin")
    assert batch.scored.entry.tolist() == [row // 2 for row in range(64)]
    assert (queries[::2] == queries[1::2]).all()
    passages = texts % 10 // 2
    assert (passages[::2] == passages[1::2]).all()
    free = np.where(passages == 4, [[row % 2] for row in range(64)], texts % 2)
    assert (free == [[row % 2] for row in range(64)]).all()


def test_two_processes_share_a_batch() -> None:
    whole, queries, texts = drawn("round_robin", 8)
    parts = [drawn("round_robin", 8, part=(number, 2)) for number in range(2)]
    assert np.concatenate([part[1] for part in parts]).tolist() == queries.tolist()
    assert np.concatenate([part[2] for part in parts]).tolist() == texts.tolist()
    assert np.concatenate([part[0].scored.scores for part in parts]).tolist() == whole.scored.scores.tolist()
