from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, band_around, band_cells, full_band
from embedsvc.mining.alignment.beads import bead_shapes
from embedsvc.mining.alignment.path import Shape, Skips, best_path

Table = NDArray[np.float32]  # (shapes, n + 1, m + 1): the score of each shape that ends in a cell


def of_rows(table: Table, band: Band, begin: int, end: int) -> Table:
    rows, columns = band_cells(band, begin, end)
    return table[:, rows, columns]


def found_path(table: Table, band: Band, shapes: list[Shape], skips: Skips) -> list[Shape]:
    return best_path(band, shapes, partial(of_rows, table, band), skips)


def total(path: list[Shape], table: Table, shapes: list[Shape], skips: Skips) -> float:
    i = j = 0
    found = 0.0
    for a, b in path:
        i, j = i + a, j + b
        known = {(1, 0): skips.source, (0, 1): skips.target}
        found += known[a, b] if (a, b) in known else float(table[shapes.index((a, b)), i, j])
    return found


def every_path(i: int, j: int, shapes: list[Shape]) -> list[list[Shape]]:
    if (i, j) == (0, 0):
        return [[]]
    moves = [(a, b) for a, b in [*shapes, (1, 0), (0, 1)] if a <= i and b <= j]
    return [[*path, (a, b)] for a, b in moves for path in every_path(i - a, j - b, shapes)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_no_chain_of_beads_is_better_than_the_one_found(n: int, m: int, max_bead: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    shapes = bead_shapes(max_bead)
    table = generator.normal(size=(len(shapes), n + 1, m + 1)).astype(np.float32)
    skips = Skips(*generator.normal(-0.5, 0.5, 2))
    path = found_path(table, full_band(n, m), shapes, skips)
    assert (sum(a for a, _ in path), sum(b for _, b in path)) == (n, m)
    best = max(total(other, table, shapes, skips) for other in every_path(n, m, shapes))
    assert total(path, table, shapes, skips) == pytest.approx(best, abs=1e-9)


def test_a_small_case_computed_by_hand() -> None:
    """Two against three: 1-1 (0.9) + 1-2 (0.7) = 1.6 is more than 1-1, 0-1, 1-1 (0.9 - 0.4 + 0.8 = 1.3)."""
    shapes: list[Shape] = [(1, 1), (1, 2)]
    table = np.full((2, 3, 4), -9.0, np.float32)
    table[0, 1, 1], table[0, 2, 3], table[1, 2, 3] = 0.9, 0.8, 0.7
    assert found_path(table, full_band(2, 3), shapes, Skips(-0.4, -0.4)) == [(1, 1), (1, 2)]
    assert found_path(table, full_band(2, 3), shapes, Skips(-0.4, -0.05)) == [(1, 1), (0, 1), (1, 1)]


def test_equal_sums_take_the_first_shape_then_the_source_alone() -> None:
    table = np.zeros((1, 2, 2), np.float32)
    assert found_path(table, full_band(1, 1), [(1, 1)], Skips(0.0, 0.0)) == [(1, 1)]
    table[:] = -9
    assert found_path(table, full_band(1, 1), [(1, 1)], Skips(-1.0, -1.0)) == [(0, 1), (1, 0)]


def test_a_band_that_holds_the_path_finds_it_as_the_whole_table_does() -> None:
    """More cells than one chunk has, a long run of target sentences without source, and one of source."""
    n, m = 900, 900
    generator = np.random.default_rng(5)
    shapes = bead_shapes(3)
    table = generator.normal(-2, 0.1, (len(shapes), n + 1, m + 1)).astype(np.float32)
    matched = [*zip(range(300), range(300), strict=True), *zip(range(500, 800), range(450, 750), strict=True)]
    for i, j in matched:
        table[0, i + 1, j + 1] = 1.0
    skips = Skips(-0.1, -0.1)
    anchors = np.array(matched[::7], np.float64) + 0.5
    band = band_around(anchors, n, m, 6)
    assert band.cells < 0.1 * (n + 1) * (m + 1)
    near, whole = (found_path(table, area, shapes, skips) for area in (band, full_band(n, m)))
    assert total(near, table, shapes, skips) == pytest.approx(total(whole, table, shapes, skips), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(0, 4),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5),
)  # fmt: skip
def test_any_anchors_leave_a_way_from_the_first_cell_to_the_last(
    n: int, m: int, radius: int, places: list[tuple[float, float]]
) -> None:
    xs, ys = sorted(x for x, _ in places), sorted(y for _, y in places)
    anchors = np.array([*zip(xs, ys, strict=True)]).reshape(-1, 2) * [n, m]
    band = band_around(anchors, n, m, radius)
    assert (band.low[0], band.high[-1], band.rows) == (0, m, n + 1)
    assert (np.diff(band.low) >= 0).all()
    assert (np.diff(band.high) >= 0).all()
    path = found_path(np.zeros((1, n + 1, m + 1), np.float32), band, [(1, 1)], Skips(-1.0, -1.0))
    assert (sum(a for a, _ in path), sum(b for _, b in path)) == (n, m)


def test_a_climb_between_two_rows_is_in_both() -> None:
    """Nobody knows yet before or after which source sentence fifty target sentences were put in."""
    band = band_around(np.array([[10.0, 10.0], [11.0, 60.0]]), 30, 80, 2)
    assert [(band.low[i], band.high[i]) for i in (9, 10, 11, 12)] == [(6, 12), (7, 62), (8, 64), (58, 65)]


def test_shapes_have_a_limit_on_each_side_and_together() -> None:
    assert bead_shapes(1) == [(1, 1)]
    assert bead_shapes(2) == [(1, 1), (1, 2), (2, 1)]
    assert set(bead_shapes(5)) == {(a, b) for a in range(1, 6) for b in range(1, 6) if a + b <= 6}
