import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.first_pass import FloatProduct, Pass, candidates
from indexing.selection import BestLists, take_tile

LOWEST = np.iinfo(np.int32).min


def best(scores, k):
    """The k best columns of every row, best first, lower column first among equals."""
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def taken(scores, k, tile, start=(0, 0)):
    """Lists of rows and of columns after all tiles of a matrix."""
    height, width = scores.shape
    rows = BestLists(height, min(k, width), scores.dtype)
    columns = BestLists(width, min(k, height), scores.dtype)
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            part = np.ascontiguousarray(scores[top : top + tile[0], left : left + tile[1]])
            own = rows.part(top, top + len(part)), columns.part(left, left + part.shape[1])
            take_tile(part, *own, (start[0] + top, start[1] + left))
    return rows.ranked(), columns.ranked()


def assert_best(found, scores, k):
    for (values, rows), matrix in zip(found, (scores, scores.T), strict=True):
        expected_scores, expected_rows = best(matrix, k)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(values, expected_scores)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    k=st.integers(1, 12),
    values=st.sampled_from([1, 2, 5, 1000]),
    dtype=st.sampled_from([np.float32, np.int32]),
    seed=st.integers(0, 1000),
)
def test_lists_are_those_of_sorting_everything(shape, tile, k, values, dtype, seed):
    scores = np.random.default_rng(seed).integers(-values, values, shape, endpoint=True).astype(dtype)
    assert_best(taken(scores, k, tile), scores, k)


@pytest.mark.parametrize("shape", [(320, 400), (33, 500), (500, 17)])
def test_large_tiles_in_which_chunks_decide(shape):
    scores = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert_best(taken(scores, 3, (160, 200)), scores, 3)


def test_where_all_scores_are_equal_the_first_rows_win():
    scores = np.full((300, 400), 7, np.int32)
    assert_best(taken(scores, 5, (300, 400)), scores, 5)


def test_a_hub_that_is_best_for_all_is_in_every_list():
    scores = np.random.default_rng(1).standard_normal((256, 300)).astype(np.float32)
    scores[:, 123] = 9
    scores[77] = 8
    assert_best(taken(scores, 4, (64, 100)), scores, 4)


def test_minus_zero_ties_with_zero():
    scores = np.array([[-0.0, 0.0, -0.0, -1.0]], np.float32)
    np.testing.assert_array_equal(taken(scores, 3, (1, 4))[0][1], [[0, 1, 2]])


def test_negative_scores_keep_their_order():
    scores = np.array([[-3.5, -0.25, -1e-30, -2.0]], np.float32)
    (values, rows), _ = taken(scores, 4, (1, 4))
    np.testing.assert_array_equal(rows, [[2, 1, 3, 0]])
    np.testing.assert_array_equal(values, scores[0][rows])


def test_slots_without_an_entry_have_row_minus_one():
    lists = BestLists(2, 3, np.float32)
    lists.add(np.array([1]), np.array([5 << 32]))
    scores, rows = lists.ranked()
    assert (rows[0] == -1).all()
    assert (scores[0] == -np.inf).all()
    assert (rows[1, 1:] == -1).all()
    assert (BestLists(1, 2, np.int32).ranked()[0] == LOWEST).all()


def test_rows_beyond_two_thousand_million_are_kept():
    scores = np.array([[0.5, 0.25]], np.float32)
    (_, rows), (_, columns) = taken(scores, 1, (1, 2), start=(4_000_000_000, 3_000_000_000))
    assert rows.tolist() == [[3_000_000_000]]
    assert columns.tolist() == [[4_000_000_000], [4_000_000_000]]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("tile", [(16, 50), (48, 500), (7, 9), (1000, 1000)])
def test_threads_and_tiles_change_nothing(threads, tile):
    random = np.random.default_rng(3)
    # Small whole numbers: many ties, and products that are exact in any order.
    x, y = (random.integers(-2, 3, (n, 6)).astype(np.float32) for n in (230, 170))
    rows, columns = candidates(FloatProduct(x, y), Pass(7, tile, threads))
    assert_best((rows.ranked(), columns.ranked()), x @ y.T, 7)


def test_an_error_in_a_thread_is_raised():
    class Broken(FloatProduct):
        def columns(self, start, stop):
            def scores(top, bottom):
                raise MemoryError(f"{start} {stop} {top} {bottom}")

            return scores

    x = np.eye(4, dtype=np.float32)
    with pytest.raises(MemoryError, match="0 4 0 2"):
        candidates(Broken(x, x), Pass(1, (2, 4), 2))
