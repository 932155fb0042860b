"""Random crops: contiguous, as long as asked, anywhere in the text."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.crops import CropSampler, CropShape, cropped
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
    crops = cropped(texts, rows, (low, high), np.random.default_rng(seed))
    ids, sizes = crops.ids, crops.lengths
    for row, size, crop in zip(rows, sizes, np.split(ids, np.cumsum(sizes)[:-1]), strict=True):
        whole = lengths[row]
        assert min(1, whole) <= size <= max(1, int(whole * high)) or size == whole == 0
        assert size >= min(whole, int(whole * low))
        if size:
            assert texts.starts[row] <= crop[0]
            assert crop[-1] < texts.starts[row + 1]
            assert crop.tolist() == list(range(crop[0], crop[0] + size))


def test_a_batch_pairs_two_crops_of_each_text_and_knows_equal_texts() -> None:
    texts, keys = bags([40, 30, 20]), np.array([7, 8, 7])
    sampler = CropSampler(texts, keys, lambda size, _: np.arange(size) % 3, CropShape(3, (0.5, 0.5)), seed=1)
    batch = sampler.batch(5)
    crops = np.split(batch.texts.ids, batch.texts.starts[1:-1])
    assert [len(crop) for crop in crops] == [20, 15, 10, 20, 15, 10]
    for text, crop in zip([0, 1, 2, 0, 1, 2], crops, strict=True):
        assert texts.starts[text] <= crop[0] < texts.starts[text + 1]
    assert any(first[0] != second[0] for first, second in zip(crops[:3], crops[3:], strict=True))
    assert batch.relations.tolist() == [[1, -1, 0], [-1, 1, -1], [0, -1, 1]]
    assert (
        sampler.batch(5).texts.ids.tolist() == batch.texts.ids.tolist() != sampler.batch(6).texts.ids.tolist()
    )
    dropping = CropSampler(texts, keys, lambda *_: np.arange(3), CropShape(3, (1, 1), 0.5), seed=1).batch(0)
    assert 60 < len(dropping.texts.ids) < 120


def test_lengths_and_places_are_drawn_evenly() -> None:
    rows = np.zeros(4000, np.int64)
    crops = cropped(bags([100]), rows, (0.1, 0.5), np.random.default_rng(0))
    ids, lengths = crops.ids, crops.lengths
    first = ids[np.cumsum(lengths) - lengths]
    assert set(lengths) == set(range(10, 50))
    assert abs(lengths.mean() - 29.5) < 0.6
    assert abs((first / (100 - lengths)).mean() - 0.5) < 0.02
    assert {0, 90} <= {*first, *(first + lengths - 10)}
