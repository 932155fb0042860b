from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.mining.isotonic import isotonic


def test_by_hand() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert isotonic(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 2.0])).tolist() == [1.75] * 3
    assert isotonic(np.array([]), np.array([])).tolist() == []


def test_weightless_value_takes_that_of_its_block() -> None:
    assert isotonic(np.array([0.2, 0.9, 0.4]), np.array([1.0, 0.0, 1.0])).tolist() == [0.2, 0.2, 0.4]


def min_max(values: list[float], weights: list[float]) -> list[float]:
    """The closed form: the greatest, over beginnings, of the least, over ends, of the means between."""

    def mean(a: int, b: int) -> float:
        return float(np.average(values[a : b + 1], weights=weights[a : b + 1]))

    n = len(values)
    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(1, 3)), min_size=1, max_size=9))
def test_same_as_the_closed_form(points: list[tuple[int, int]]) -> None:
    values, weights = [float(value) for value, _ in points], [float(weight) for _, weight in points]
    assert isotonic(np.array(values), np.array(weights)) == pytest.approx(min_max(values, weights))
