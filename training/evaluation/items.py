"""What a figure is computed from, item by item: so that it can be resampled, and compared between models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Statistic = Literal["ratio", "pearson", "spearman"]
Numbers = NDArray[np.float64]
_BLOCK = 1 << 21  # weights turned into float64 at once


@dataclass(frozen=True, eq=False)
class Items:
    """Two numbers per test item, ``values`` ``(n, 2)``, and how one figure is made of them.

    ratio               sum of the first over sum of the second: a mean where the second is 1, an F1 where
                        they are twice the right pairs, and the found and the true ones
    pearson, spearman   the correlation of the first with the second

    ``scale`` multiplies the result. Nothing to divide by gives NaN.
    """

    values: Numbers
    statistic: Statistic = "ratio"
    scale: float = 100.0

    def __len__(self) -> int:
        return len(self.values)

    def figure(self) -> float:
        """Return the figure of all items."""
        return float(self.figures(np.ones((1, len(self)), np.int64))[0])

    def figures(self, counts: NDArray[np.integer]) -> Numbers:
        """Return the figures ``(b,)`` of resamples: ``counts`` ``(b, n)``, how often each item is in each."""
        if self.statistic == "ratio":
            return self._quotients(_products(counts, self.values))
        return self.scale * np.array(
            [self._correlation(np.repeat(self.values, row, axis=0)) for row in counts]
        )

    def null_differences(self, other: Items, swaps: NDArray[np.bool_]) -> Numbers:
        """Return ``(b,)`` differences, this minus other, with the items in ``swaps`` ``(b, n)`` exchanged.

        Under the hypothesis that the models are alike, exchanging their results on any item changes nothing;
        these are the differences that chance then makes. Gold scores of a correlation stay in place.
        """
        if self.statistic == "ratio":
            moved = _products(swaps, other.values - self.values)
            ours, theirs = self.values.sum(axis=0) + moved, other.values.sum(axis=0) - moved
            return self._quotients(ours) - other._quotients(theirs)
        return self.scale * np.array([self._swapped_difference(other, swap) for swap in swaps])

    def _swapped_difference(self, other: Items, swap: NDArray[np.bool_]) -> float:
        gold, mine, theirs = self.values[:, 1], _places(self.values[:, 0]), _places(other.values[:, 0])
        if self.statistic == "pearson":
            mine, theirs = _standardised(self.values[:, 0]), _standardised(other.values[:, 0])
        a, b = np.where(swap, theirs, mine), np.where(swap, mine, theirs)
        return self._correlation(np.column_stack([a, gold])) - self._correlation(np.column_stack([b, gold]))

    def _quotients(self, sums: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            quotients: Numbers = self.scale * np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)
        return quotients

    def _correlation(self, rows: Numbers) -> float:
        x, y = rows.T
        if self.statistic == "spearman":
            x, y = _places(x), _places(y)
        x, y = x - x.mean(), y - y.mean()
        spread = np.sqrt((x @ x) * (y @ y))
        return float(x @ y / spread) if spread > 0 else float("nan")


def mean_items(scores: NDArray[np.generic], *, scale: float = 100.0) -> Items:
    """Return items whose figure is the mean of ``scores`` ``(n,)``; NaN scores do not count."""
    numbers = np.asarray(scores, np.float64)
    known = ~np.isnan(numbers)
    return Items(np.column_stack([np.where(known, numbers, 0), known]), scale=scale)


def mean_known(values: NDArray[np.generic] | list[Numbers]) -> Numbers:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is known."""
    numbers = np.asarray(values, np.float64)
    known = ~np.isnan(numbers)
    counts = known.sum(axis=0)
    sums = np.where(known, numbers, 0).sum(axis=0)
    means: Numbers = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _products(weights: NDArray[np.generic], values: Numbers) -> Numbers:
    """Return ``weights @ values`` ``(b, 2)``, a few rows at a time: weights are small integers, and many."""
    rows = max(1, _BLOCK // max(1, len(values)))
    parts = [
        weights[begin : begin + rows].astype(np.float64) @ values for begin in range(0, len(weights), rows)
    ]
    return np.concatenate(parts)


def _places(values: Numbers) -> Numbers:
    """Return ranks from 1 ``(n,)``, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Numbers = ((last - counts + 1 + last) / 2)[inverse]
    return ranks


def _standardised(values: Numbers) -> Numbers:
    spread = values.std()
    standardised: Numbers = (values - values.mean()) / (spread if spread > 0 else 1)
    return standardised
