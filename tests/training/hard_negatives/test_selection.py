"""Which neighbours become negatives: hand-made neighbourhoods, and a plain loop beside the arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.selection import Neighbourhood, ceilings, select


def neighbourhood(
    scores: list[float], *, known: tuple[int, ...] = (), positive: float = 0.8
) -> Neighbourhood:
    row = np.array([scores], np.float32)
    is_known = np.zeros(row.shape, bool)
    is_known[0, list(known)] = True
    return Neighbourhood(row, np.isfinite(row), is_known, np.array([positive], np.float32))


def chosen(near: Neighbourhood, **options: float) -> list[int]:
    return select(near, NegativeOptions(**options)).columns[0].tolist()  # type: ignore[arg-type]


def test_neighbours_above_the_share_of_the_positive_are_left_out() -> None:
    near = neighbourhood([0.9, 0.77, 0.75, 0.6, 0.5])  # 0.95 * 0.8 = 0.76
    assert chosen(near, count=2) == [2, 3]
    assert select(near, NegativeOptions(count=2)).too_near.tolist() == [2]
    assert chosen(near, count=2, max_share=1.0) == [1, 2]
    assert chosen(near, count=2, margin=0.25) == [4, -1]


def test_translations_take_no_rank_and_are_never_chosen() -> None:
    near = neighbourhood([0.9, 0.7, 0.6, 0.5, 0.4], known=(0, 2))
    assert chosen(near, count=2) == [1, 3]
    assert chosen(near, count=2, skip=1) == [3, 4]
    assert chosen(near, count=2, skip=3) == [-1, -1]


def test_the_share_of_a_negative_score_is_below_it() -> None:
    positive = np.array([0.5, 0.0, -0.2], np.float32)
    assert ceilings(positive, NegativeOptions(max_share=0.9)).tolist() == pytest.approx([0.45, 0.0, -0.22])


@given(st.data())
def test_the_arrays_choose_what_a_loop_does(data: st.DataObject) -> None:
    k = data.draw(st.integers(0, 8))
    scores = sorted(data.draw(st.lists(st.floats(-1, 1, width=32), min_size=k, max_size=k)), reverse=True)
    there = data.draw(st.integers(0, k))
    known = data.draw(st.lists(st.booleans(), min_size=k, max_size=k))
    options = NegativeOptions(
        count=data.draw(st.integers(1, 4)),
        skip=data.draw(st.integers(0, 3)),
        max_share=data.draw(st.sampled_from([0.5, 0.95, 1.0])),
        margin=data.draw(st.sampled_from([0.0, 0.3])),
    )
    positive = np.array([data.draw(st.floats(-1, 1, width=32))], np.float32)
    near = Neighbourhood(
        np.array([scores], np.float32).reshape(1, k),
        np.arange(k)[None] < there,
        np.array([known], bool).reshape(1, k),
        positive,
    )
    expected, rank = [], 0
    for at in range(there):
        if not known[at]:
            low = near.scores[0, at] <= ceilings(positive, options)[0]
            if rank >= options.skip and low and len(expected) < options.count:
                expected.append(at)
            rank += 1
    found = select(near, options).columns[0]
    assert [at for at in found.tolist() if at >= 0] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count = 0; it must be at least 1"),
        ({"skip": -1}, "skip = -1; it must be at least 0"),
        ({"skip": 4, "depth": 4}, "depth = 4; it must be at least 5"),
        ({"max_share": 1.5}, "max_share = 1.5; expected more than 0 and at most 1"),
        ({"margin": -0.1}, "margin = -0.1; expected 0 to 2"),
        ({"anchors": "target"}, "anchors = 'target' is unknown; choose english, other, both"),
        ({"languages": "another", "anchors": "both"}, "the negatives of a translation are English"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        NegativeOptions(**options)  # type: ignore[arg-type]
