"""Isotonic regression: the non-decreasing values nearest to given ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def isotonic(values: Values, weights: Values) -> Values:
    """Return the non-decreasing values ``(n,)`` with the least weighted sum of squared differences.

    Pool adjacent violators (Ayer et al., 1955): a value below the one before it is averaged with it. A weight
    of 0 says that a value may be anything; it takes that of its block.
    """
    means: list[float] = []
    totals: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while means and (means[-1] >= mean or total == 0):
            before, weight_before = means.pop(), totals.pop()
            joined = total + weight_before
            mean = (mean * total + before * weight_before) / joined if joined else max(mean, before)
            total, count = joined, count + counts.pop()
        means.append(mean)
        totals.append(total)
        counts.append(count)
    return np.repeat(np.array(means, np.float64), counts)
