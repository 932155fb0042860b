"""The same answers from the delta, the base, both with tombstones, graphs, and during a build."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections import live_index, segments, snapshots
from embedsvc.collections.collection import Collection, CollectionOptions, SearchOptions
from embedsvc.collections.segments import Memo
from embedsvc.encoder import Encoder
from indexing import ShardOptions
from indexing.kinds import Hnsw
from tests.collections.oracle import CODES, QUERIES, Oracle, check, corpus

SEARCHES: list[dict[str, Any]] = [
    {"top_k": 30},
    {"languages": ["ca", "yo"]},
    {"languages": ["en"], "top_k": 20},
    {"filter": {"year": {"$gte": 2022}}},
    {"filter": {"$not": {"source": "web"}}, "languages": ["de", "sw"]},
    {"filter": {"author.name": "Ada"}, "balance": "round_robin"},
    {"prefer_language": {"sw": 0.2}},
    {"group_by": "source"},
    {"mode": "hybrid"},
    {"mode": "lexical", "languages": ["de"]},
]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooled graph from 200 passages on, a graph of its own for a language from 100 on."""
    small = partial(ShardOptions, flat_rows=200, shard_rows=100, graph=Hnsw(m=8, storage="sq8"))
    monkeypatch.setattr(snapshots, "ShardOptions", small)


def in_delta(collection: Collection, oracle: Oracle) -> None:
    collection.upsert(corpus(300))
    oracle.upsert(corpus(300))


def in_base(collection: Collection, oracle: Oracle) -> None:
    in_delta(collection, oracle)
    collection.build_index()


def in_both(collection: Collection, oracle: Oracle) -> None:
    """Base, delta, deletions and updates in each, deletions that were reused, and one document new twice."""
    in_base(collection, oracle)
    for changed in (
        corpus(60, seed=7, first=280),
        corpus(12, seed=8, first=20),
        corpus(1, seed=9, first=333),
    ):
        collection.upsert(changed)
        oracle.upsert(changed)
    gone = [f"d{number}" for number in (0, 5, 25, 290, 330, 335)]
    collection.delete([*gone, "nobody"])
    oracle.delete(gone)
    collection.upsert(corpus(2, seed=10, first=4))
    oracle.upsert(corpus(2, seed=10, first=4))


def compacted(collection: Collection, oracle: Oracle) -> None:
    in_both(collection, oracle)
    collection.build_index()


@pytest.mark.parametrize("arranged", [in_delta, in_base, in_both, compacted])
def test_every_arrangement_answers_as_brute_force(
    tmp_path: Path, encoder: Encoder, arranged: Callable[[Collection, Oracle], None]
) -> None:
    oracle = Oracle(encoder)
    with Collection(tmp_path / "c", encoder) as collection:
        arranged(collection, oracle)
        for options in SEARCHES:
            check(collection, oracle, **options)
        with collection._index.current() as (_, state):
            parts = len(state.base.rows), state.base.alive_count, state.delta.alive_count
        assert (
            parts
            == {
                in_delta: (0, 0, 300),
                in_base: (300, 300, 0),
                in_both: (300, 265, len(oracle.known) - 265),
                compacted: (len(oracle.known), len(oracle.known), 0),
            }[arranged]
        )
    with Collection(tmp_path / "c", encoder, create=False) as again:
        for options in SEARCHES[::3]:
            check(again, oracle, **options)


def recall(collection: Collection, oracle: Oracle, **options: Any) -> float:
    found = wanted = 0
    for query in [f"w{n} w{n + 1} w{n + 2}" for n in range(16)]:
        ranking = oracle.found(query, **options)
        best = {one.id for one in ranking[:10]}
        hits = collection.search(query, **options)
        assert len(hits) == len(best), (query, options)
        cosines = {one.id: one.score for one in ranking}
        assert [hit.score for hit in hits] == pytest.approx([cosines[hit.id] for hit in hits], abs=2e-5)
        found += len(best & {hit.id for hit in hits})
        wanted += len(best)
    return found / wanted


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("arranged", [in_base, in_both, compacted])
def test_graphs_find_what_was_promised_in_every_language(
    tmp_path: Path, encoder: Encoder, arranged: Callable[[Collection, Oracle], None]
) -> None:
    oracle = Oracle(encoder)
    with Collection(tmp_path / "c", encoder) as collection:
        arranged(collection, oracle)
        with collection._index.current() as (_, state):
            assert state.base.index.pool is not None
        assert set(state.base.index.graphs) == {"en"}
        assert collection.info().recall is not None
        assert recall(collection, oracle) >= 0.95
        assert recall(collection, oracle, filter={"year": {"$gte": 2017}}) >= 0.95
        for code in CODES:
            assert recall(collection, oracle, languages=[code]) >= 0.95, code
            assert recall(collection, oracle, languages=[code], filter={"source": "web"}) >= 0.95, code
        for code in ("ca", "yo", "sw"):
            check(collection, oracle, languages=[code], top_k=50)
        (one,) = collection.query(["w1"], options=SearchOptions(languages=["en", "ca"], explain=True))
        assert one.plan is not None
        assert one.plan["index"]["strategy"] in ("fan-out", "exact")
        assert one.plan["passages_outside_the_index"] == state.delta.alive_count


@pytest.mark.usefixtures("graphs")
def test_searches_stay_right_while_an_index_is_built_behind(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads search while documents come and go and compactions run: nothing found was ever absent."""
    monkeypatch.setattr(segments, "_LEAST_DELTA", 40)
    monkeypatch.setattr(live_index, "_SEARCHES_BEFORE_BUILD", 3)
    oracle = Oracle(encoder)
    failures: list[BaseException] = []
    stop = threading.Event()
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(corpus(250))
        oracle.upsert(corpus(250))
        steady = {one.id for one in oracle.found("w1 w2") if int(one.id[1:]) >= 100}

        def search(number: int) -> None:
            try:
                while not stop.is_set():
                    hits = collection.search(QUERIES[number % 3], top_k=500, filter={"$not": {"year": 1}})
                    ids = [hit.id for hit in hits]
                    assert len(ids) == len(set(ids))
                    assert steady <= set(ids), steady - set(ids)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=search, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(5):
                added = corpus(50, seed=20 + turn, first=300 + 40 * turn)
                collection.upsert(added)
                oracle.upsert(added)
                gone = [f"d{number}" for number in range(turn * 12, turn * 12 + 12)]
                collection.delete(gone)
                oracle.delete(gone)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        check(collection, oracle, languages=["ca", "yo", "sw"], top_k=40)
        collection._index.wait()
        with collection._index.current() as (_, state):
            pass
        assert len(state.base.rows) > 0, "an index was built meanwhile"
        assert recall(collection, oracle, top_k=10) >= 0.95
        collection.build_index()
        assert recall(collection, oracle, top_k=10) >= 0.95
        assert collection.count == len(oracle.known)


def test_ties_stand_in_the_order_of_insertion_wherever_they_lie(tmp_path: Path, encoder: Encoder) -> None:
    codes = ["sw", "en", "de"]
    given = [{"id": f"d{n}", "text": "east", "language": codes[n % 3]} for n in range(30)]
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(given[:20])
        for number in range(2):
            assert [hit.id for hit in collection.search("east", top_k=20)] == [f"d{n}" for n in range(20)], (
                number
            )
            collection.build_index()
        collection.upsert(given[20:])
        assert [hit.id for hit in collection.search("east", top_k=30)] == [f"d{n}" for n in range(30)]


def test_dimension_and_recall_survive_when_nothing_has_a_direction(tmp_path: Path, encoder: Encoder) -> None:
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert([{"id": "a", "text": "unheard of", "language": "en"}])
        collection.build_index()
        assert collection.search("east") == []
        assert [hit.id for hit in collection.search("unheard", mode="hybrid")] == ["a"]
        collection.upsert([{"id": "b", "text": "east", "language": "en"}])
        assert [hit.id for hit in collection.search("east")] == ["b"]
    with Collection(tmp_path / "d", options=CollectionOptions(dimension=3)) as collection:
        collection.build_index()
        assert collection.search_vector([1, 0, 0]) == []


def test_memo_forgets_the_oldest() -> None:
    memo = Memo()
    for number in range(100):
        memo.keep(memo.matching, number, np.zeros(1, bool))
    assert list(memo.matching) == list(range(36, 100))


def test_memo_is_kept_by_many_threads_at_once() -> None:
    memo = Memo()
    failures: list[BaseException] = []

    def keep(first: int) -> None:
        try:
            for number in range(3000):
                memo.keep(memo.matching, (first, number), np.zeros(1, bool))
        except BaseException as error:
            failures.append(error)

    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=keep, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []


def test_filters_of_a_large_collection_are_remembered_within_a_bound(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(encoder)
    monkeypatch.setattr(segments, "_KEPT_BYTES", 6 * segments._BYTES_PER_PASSAGE * 300)
    with Collection(tmp_path / "c", encoder) as collection:
        in_base(collection, oracle)
        for year in range(2010, 2024):
            check(collection, oracle, filter={"year": {"$gt": year}})
        with collection._index.current() as (_, state):
            assert len(state.base.rows) == 300
            assert len(state.memo.allowed) == 6
