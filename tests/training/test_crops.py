"""Random crops: contiguous, as long as asked, anywhere in the text."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.crops import cropped
from training.data import TokenBags


def bags(lengths: list[int]) -> TokenBags:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return TokenBags(np.arange(starts[-1], dtype=np.int32), starts)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)),
    st.integers(0, 100),
)
def test_a_crop_is_a_run_of_its_own_text(lengths: list[int], shares: tuple[float, float], seed: int) -> None:
    low, high = sorted(shares)
    rows = np.arange(len(lengths))[::-1].copy()
    texts = bags(lengths)
    ids, sizes = cropped(texts, rows, (low, high), np.random.default_rng(seed))
    for row, size, crop in zip(rows, sizes, np.split(ids, np.cumsum(sizes)[:-1]), strict=True):
        whole = lengths[row]
        assert min(1, whole) <= size <= max(1, int(whole * high)) or size == whole == 0
        assert size >= min(whole, int(whole * low))
        if size:
            assert texts.starts[row] <= crop[0] and crop[-1] < texts.starts[row + 1]
            assert crop.tolist() == list(range(crop[0], crop[0] + size))


def test_lengths_and_places_are_drawn_evenly() -> None:
    rows = np.zeros(4000, np.int64)
    ids, lengths = cropped(bags([100]), rows, (0.1, 0.5), np.random.default_rng(0))
    first = ids[np.cumsum(lengths) - lengths]
    assert set(lengths) == set(range(10, 50))
    assert abs(lengths.mean() - 29.5) < 0.6
    assert abs((first / (100 - lengths)).mean() - 0.5) < 0.02
    assert {0, 90} <= {*first, *(first + lengths - 10)}
