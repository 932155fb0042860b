"""Batches of rows: every row once, within the padded budget, like beside like."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.scheduling.plan import plan_batches


def test_a_case_computed_by_hand() -> None:
    # Budget 12: 9 alone; 6 and 4 pad to 12; 3, 3, 1, 0 pad to 12: cheaper than a batch (16 tokens) more.
    lengths = [3, 9, 0, 6, 1, 4, 3]
    for pads in (True, False):
        batches = plan_batches(lengths, 12, pads=pads)
        assert [batch.tolist() for batch in batches] == [[1], [3, 5], [0, 6, 4, 2]]
    # Budget 1000: 2 x 100 + 16 against 40 + 100 + 2 x 16 and 3 x 100 + 16.
    assert [batch.tolist() for batch in plan_batches([40, 100, 100], 1000)] == [[1, 2], [0]]
    assert [batch.tolist() for batch in plan_batches([90, 100, 100], 1000)] == [[1, 2, 0]]
    assert [batch.tolist() for batch in plan_batches([40, 100, 100], 1000, pads=False)] == [[1, 2, 0]]


def cost(lengths: list[int], batches: list[list[int]]) -> int:
    return sum(len(batch) * max(1, max(lengths[row] for row in batch)) + 16 for batch in batches)


@given(st.lists(st.integers(0, 120), min_size=1, max_size=9))
def test_without_a_budget_no_way_of_cutting_is_cheaper(lengths: list[int]) -> None:
    ordered = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    cuts = itertools.product([False, True], repeat=len(lengths) - 1)
    least = min(cost(lengths, split(ordered, cut)) for cut in cuts)
    assert cost(lengths, [batch.tolist() for batch in plan_batches(lengths, 10_000)]) == least


def split(rows: list[int], cuts: tuple[bool, ...]) -> list[list[int]]:
    parts = [[rows[0]]]
    for row, cut in zip(rows[1:], cuts, strict=True):
        if cut:
            parts.append([])
        parts[-1].append(row)
    return parts


@given(st.lists(st.integers(0, 300)), st.integers(1, 1000), st.booleans())
def test_every_row_once_longest_first_within_the_budget(lengths: list[int], budget: int, pads: bool) -> None:
    batches = plan_batches(lengths, budget, pads=pads)
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
    assert padded / lengths.sum() < 1.12
