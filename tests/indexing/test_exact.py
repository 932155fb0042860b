import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing_reference import assert_same, brute_force, clustered_rows, unit_rows

import indexing.exact
from indexing import IndexingError, VectorError, nearest, nearest_both_ways
from indexing.first_pass import FloatProduct

# Unit vectors whose products are exact in float32, so that equal scores are equal to the last bit.
EXACT = np.array(
    [sign * row for row in np.eye(4) for sign in (1, -1)] + list(itertools.product((0.5, -0.5), repeat=4)),
    np.float32,
)
exact_rows = st.lists(st.integers(0, len(EXACT) - 1), min_size=1, max_size=40).map(
    lambda chosen: EXACT[chosen]
)


def test_both_ways_by_hand():
    x = np.array([[1, 0], [0, 1]], np.float32)
    y = np.array([[0.6, 0.8], [0.8, 0.6], [-1, 0]], np.float32)
    both = nearest_both_ways(x, y, 2)
    np.testing.assert_array_equal(both.x_to_y.rows, [[1, 0], [0, 1]])
    np.testing.assert_allclose(both.x_to_y.scores, [[0.8, 0.6], [0.8, 0.6]], atol=1e-7)
    np.testing.assert_array_equal(both.y_to_x.rows, [[1, 0], [0, 1], [1, 0]])
    np.testing.assert_allclose(both.y_to_x.scores, [[0.8, 0.6], [0.8, 0.6], [0, -1]], atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(exact_rows, exact_rows, st.integers(1, 6), st.sampled_from([4, 60, 400, 1 << 20]))
def test_ties_and_duplicates_are_ordered_as_by_brute_force(x, y, k, block_bytes):
    both = nearest_both_ways(x, y, k, block_bytes=block_bytes)
    assert_same(both.x_to_y, brute_force(x, y, min(k, len(y))))
    assert_same(both.y_to_x, brute_force(y, x, min(k, len(x))))


@pytest.mark.parametrize("block_bytes", [300, 9000, 40_000, 1 << 25])
@pytest.mark.parametrize("k", [1, 7, 90])
def test_both_ways_are_brute_force_for_any_tile(block_bytes, k):
    x, y = clustered_rows(130, seed=3), clustered_rows(170, seed=4)
    both = nearest_both_ways(x, y, k, block_bytes=block_bytes)
    assert_same(both.x_to_y, brute_force(x, y, k))
    assert_same(both.y_to_x, brute_force(y, x, k))


def test_rounding_of_the_product_does_not_order_equal_scores(monkeypatch):
    """A product may give two equal rows scores that differ in the last bits, as its tiles end differently."""

    class Rounding(FloatProduct):
        def columns(self, start, stop):
            scores = super().columns(start, stop)
            noise = np.random.default_rng(1).uniform(-1e-7, 1e-7, stop - start).astype(np.float32)
            return lambda top, bottom: scores(top, bottom) + noise

    monkeypatch.setattr(indexing.exact, "FloatProduct", Rounding)
    vectors = np.repeat(unit_rows(20, seed=7), 5, axis=0)
    found = nearest(unit_rows(30), vectors, 2)
    assert_same(found, brute_force(unit_rows(30), vectors, 2))


def test_one_way_is_the_same_as_both():
    x, y = clustered_rows(130, seed=3), clustered_rows(170, seed=4)
    both = nearest_both_ways(x, y, 5, block_bytes=9000)
    one = nearest(x, y, 5, block_bytes=9000)
    np.testing.assert_array_equal(one.rows, both.x_to_y.rows)
    np.testing.assert_array_equal(one.scores, both.x_to_y.scores)


def test_k_is_clipped_to_the_other_side():
    both = nearest_both_ways(unit_rows(3), unit_rows(5, seed=1), 4)
    assert both.x_to_y.rows.shape == (3, 4)
    assert both.y_to_x.rows.shape == (5, 3)
    assert nearest(unit_rows(3), unit_rows(2), 9).rows.shape == (3, 2)


def test_an_empty_side_leaves_nothing_to_find():
    none = np.empty((0, 16), np.float32)
    for x, y in ((none, unit_rows(3)), (unit_rows(3), none), (none, none)):
        both = nearest_both_ways(x, y, 2)
        assert both.x_to_y.rows.shape == (len(x), min(2, len(y)))
        assert both.y_to_x.rows.shape == (len(y), min(2, len(x)))


def test_vectors_may_be_memory_mapped(tmp_path):
    np.save(tmp_path / "x.npy", unit_rows(50))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_same(nearest(mapped, mapped, 3), brute_force(unit_rows(50), unit_rows(50), 3))


def test_progress_counts_the_rows_done():
    calls = []
    nearest_both_ways(
        unit_rows(10),
        unit_rows(8),
        1,
        block_bytes=64,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_wrong_arguments_are_refused():
    with pytest.raises(VectorError, match="y have dimension 16; expected 8"):
        nearest_both_ways(unit_rows(2, 8), unit_rows(2), 1)
    with pytest.raises(VectorError, match=r"x\[0\] has length 2"):
        nearest_both_ways(unit_rows(2) * 2, unit_rows(2), 1)
    with pytest.raises(IndexingError, match="k is 0"):
        nearest(unit_rows(2), unit_rows(2), 0)
