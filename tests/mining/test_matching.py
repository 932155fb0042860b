from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedsvc.mining import matching
from embedsvc.mining.matching import greedy_matching, optimal_matching

Graph = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def best_first(sources: list[int], targets: list[int], gains: list[float]) -> Graph:
    s, t, g = np.array(sources, np.int64), np.array(targets, np.int64), np.array(gains, np.float64)
    order = np.lexsort((t, s, -g))
    return s[order], t[order], g[order]


def random_graph(n: int, m: int, pairs: int, seed: int, values: int = 1000) -> Graph:
    random = np.random.default_rng(seed)
    keys = random.choice(n * m, min(pairs, n * m), replace=False)
    gains = random.integers(-values // 5, values, len(keys)) / values
    return best_first((keys // m).tolist(), (keys % m).tolist(), gains.tolist())


def is_one_to_one(graph: Graph, kept: NDArray[np.bool_]) -> bool:
    return all(len(np.unique(rows[kept])) == kept.sum() for rows in graph[:2])


def best_total(graph: Graph) -> float:
    """The highest sum over all one-to-one choices, by trying them all."""
    sources, targets, gains = graph
    best = 0.0
    for size in range(1, min(len(set(sources)), len(set(targets))) + 1):
        for chosen in combinations(range(len(gains)), size):
            pick = list(chosen)
            if len(set(sources[pick])) == len(set(targets[pick])) == size:
                best = max(best, float(gains[pick].sum()))
    return best


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.integers(0, 2**32), st.sampled_from([3, 1000])
)
def test_no_choice_gains_more_than_the_optimal_one(
    n: int, m: int, pairs: int, seed: int, values: int
) -> None:
    graph = random_graph(n, m, pairs, seed, values)
    kept = optimal_matching(*graph)
    assert is_one_to_one(graph, kept)
    assert graph[2][kept].sum() == pytest.approx(best_total(graph), abs=1e-9)


@pytest.mark.parametrize(("n", "m", "pairs"), [(60, 60, 240), (300, 100, 900), (5, 400, 1500)])
def test_optimal_gains_as_much_as_a_dense_solver_finds(n: int, m: int, pairs: int) -> None:
    linear_sum_assignment: Any = pytest.importorskip("scipy.optimize").linear_sum_assignment
    for seed in range(3):
        graph = random_graph(n, m, pairs, seed, values=20)
        table = np.zeros((n, m))
        table[graph[0], graph[1]] = np.maximum(graph[2], 0)
        kept = optimal_matching(*graph)
        assert is_one_to_one(graph, kept)
        assert graph[2][kept].sum() == pytest.approx(table[linear_sum_assignment(-table)].sum())
        assert (graph[2][kept] >= 0).all()


def test_optimal_by_hand_gives_up_the_best_pair_only_where_two_others_gain_more() -> None:
    # The pair in the middle (.50) against its two neighbours together: .30 + .25, then .30 + .15.
    assert optimal_matching(*best_first([0, 0, 1], [0, 1, 0], [0.5, 0.3, 0.25])).tolist() == [
        False,
        True,
        True,
    ]
    assert optimal_matching(*best_first([0, 0, 1], [0, 1, 0], [0.5, 0.3, 0.15])).tolist() == [
        True,
        False,
        False,
    ]


def test_optimal_leaves_texts_alone_rather_than_in_a_losing_pair() -> None:
    assert optimal_matching(*best_first([0, 1, 2], [0, 1, 2], [0.5, 0.0, -0.1])).tolist() == [
        True,
        True,
        False,
    ]


def plain_greedy(graph: Graph) -> list[bool]:
    used: set[tuple[str, int]] = set()
    kept = []
    for source, target in zip(graph[0].tolist(), graph[1].tolist(), strict=True):
        texts = {("source", source), ("target", target)}
        kept.append(not texts & used)
        used |= texts if kept[-1] else set()
    return kept


@pytest.mark.parametrize("few", [0, 30, 10**9])
def test_greedy_in_passes_chooses_what_a_loop_over_all_pairs_chooses(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_FEW", few)
    for seed in range(20):
        graph = random_graph(40, 30, 200, seed, values=5)
        assert greedy_matching(*graph[:2]).tolist() == plain_greedy(graph)


def test_greedy_along_one_long_chain() -> None:
    # Each pair shares a text with the next: passes take one pair at a time, and the loop has to finish.
    sources = np.arange(1, 10_001) // 2
    targets = np.arange(10_000) // 2
    assert greedy_matching(sources, targets).tolist() == [True, False] * 5_000


def test_no_pairs() -> None:
    none = np.empty(0, np.int64)
    assert len(greedy_matching(none, none)) == len(optimal_matching(none, none, np.empty(0))) == 0
