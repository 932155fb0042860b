from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.mining.plants import (
    PlantedNeighbours,
    nearest_of,
    neighbours_with_plants,
    plan_plants,
    without_rows,
)
from indexing import BothWays, Neighbours, nearest_both_ways, normalize_rows


def unit(n: int, seed: int) -> NDArray[np.float32]:
    return normalize_rows(np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32))


X, Y, MORE_X, MORE_Y = unit(20, 0), unit(15, 1), unit(6, 2), unit(7, 3)
PARTS = PlantedNeighbours(
    nearest_both_ways(X, Y, 4),
    nearest_both_ways(MORE_X, Y, 4),
    nearest_both_ways(X, MORE_Y, 4),
    nearest_both_ways(MORE_X, MORE_Y, 4),
)


def assert_same(found: BothWays, expected: BothWays) -> None:
    for mine, theirs in ((found.x_to_y, expected.x_to_y), (found.y_to_x, expected.y_to_x)):
        assert mine.rows.tolist() == theirs.rows.tolist()
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-6)


@pytest.mark.parametrize("sources", [True, False])
@pytest.mark.parametrize("targets", [True, False])
def test_neighbours_are_those_of_the_sides_with_the_plants_added(sources: bool, targets: bool) -> None:
    x = np.concatenate([X, MORE_X]) if sources else X
    y = np.concatenate([Y, MORE_Y]) if targets else Y
    found = neighbours_with_plants(PARTS, sources=sources, targets=targets)
    assert_same(found, nearest_both_ways(x, y, 4))


def test_fewer_plants_than_k_leave_no_hole() -> None:
    parts = PlantedNeighbours(
        PARTS.corpus,
        nearest_both_ways(MORE_X[:1], Y, 4),
        nearest_both_ways(X, MORE_Y[:2], 4),
        nearest_both_ways(MORE_X[:1], MORE_Y[:2], 4),
    )
    expected = nearest_both_ways(np.concatenate([X, MORE_X[:1]]), np.concatenate([Y, MORE_Y[:2]]), 4)
    assert_same(neighbours_with_plants(parts, sources=True, targets=True), expected)


def test_without_rows_is_as_if_they_had_never_been() -> None:
    kept_x, kept_y = np.delete(np.arange(20), [3, 7]), np.delete(np.arange(15), [0])
    found = nearest_of(without_rows(nearest_both_ways(X, Y, 6), np.array([3, 7]), np.array([0])), 4)
    expected = nearest_both_ways(X[kept_x], Y[kept_y], 4)
    assert kept_y[expected.x_to_y.rows].tolist() == found.x_to_y.rows[kept_x].tolist()
    assert kept_x[expected.y_to_x.rows].tolist() == found.y_to_x.rows[kept_y].tolist()
    for gone in (found.x_to_y.rows[[3, 7]], found.y_to_x.rows[[0]]):
        assert (gone == -1).all()


def test_missing_neighbours_stay_missing() -> None:
    holes = Neighbours(np.array([[0.5, -np.inf]], np.float32), np.array([[0, -1]]))
    found = without_rows(BothWays(holes, holes), np.empty(0, np.int64), np.empty(0, np.int64))
    assert found.x_to_y.rows.tolist() == [[0, -1]]


def test_texts_of_the_corpus_stay_in_place_and_doubtful_pairs_are_left_out() -> None:
    pairs = [("da", "there"), ("neu", "new"), ("neu ", "novel"), (" ", "x"), ("hier", "here"), ("da", "new")]
    plants = plan_plants(pairs, ({"da": 4}.get, {"here": 2}.get), (10, 20))
    assert (plants.source_texts, plants.target_texts) == (["neu", "hier"], ["there", "new"])
    assert plants.pairs.tolist() == [[4, 20], [10, 21], [11, 2]]
