"""Batches of rows: every row once, within the padded budget, like beside like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.scheduling.plan import plan_batches


def test_a_case_computed_by_hand() -> None:
    # Budget 12: 9 alone; 6 and 4 pad to 12; 3, 3, 1, 0 pad to 12.
    batches = plan_batches([3, 9, 0, 6, 1, 4, 3], 12)
    assert [batch.tolist() for batch in batches] == [[1], [3, 5], [0, 6, 4, 2]]


@given(st.lists(st.integers(0, 300)), st.integers(1, 1000))
def test_every_row_once_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    rows = [row for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * max(longest, 1) <= budget


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_sorting_never_pads_more_than_the_given_order(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan_batches(lengths.tolist(), budget))
    assert padded <= 500 * 200
    assert padded / lengths.sum() < 1.35
