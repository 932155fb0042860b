"""Which pairs stand in one batch: any, those of one language, or whole translation groups."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Draws(Protocol):
    """Draws pairs by weight, with replacement."""

    def __call__(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return (size,) rows of pairs."""
        ...


class PairDraws:
    """Each pair on its own."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self._cumulative = np.cumsum(weights)

    def __call__(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        return _picked(self._cumulative, generator.random(size))


class OneLanguageDraws:
    """All pairs of a batch from one language, drawn by the weight of all its pairs."""

    def __init__(self, weights: NDArray[np.float64], language: NDArray[np.int16]) -> None:
        self._rows = np.argsort(language, kind="stable")
        self._ends = np.cumsum(np.bincount(language))
        self._cumulative = np.concatenate([[0.0], np.cumsum(weights[self._rows])])

    def __call__(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        chosen = int(_picked(self._cumulative[self._ends], generator.random(1))[0])
        begin, end = (self._ends[chosen - 1] if chosen else 0), self._ends[chosen]
        cumulative = self._cumulative[begin + 1 : end + 1] - self._cumulative[begin]
        rows: NDArray[np.int64] = self._rows[begin + _picked(cumulative, generator.random(size))]
        return rows


class GroupDraws:
    """English sentences by the weight of their pairs, ``translations`` pairs of each.

    Those are drawn by weight too, without replacement; a sentence that has fewer brings fewer.
    """

    def __init__(self, weights: NDArray[np.float64], group: NDArray[np.int64], translations: int) -> None:
        _, number = np.unique(group, return_inverse=True)
        self._translations = translations
        self._weights = weights
        self._pairs = PairDraws(weights)
        self._group = number
        self._rows = np.argsort(number, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(number))])

    def __call__(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        place, rows = self._members(self._group[self._pairs(size, generator)])
        # The smallest of exponential times: a draw by weight without replacement.
        with np.errstate(divide="ignore"):
            times = generator.exponential(size=len(rows)) / self._weights[rows]
        order = np.lexsort((times, place))
        place, rows, times = place[order], rows[order], times[order]
        rank = np.arange(len(rows)) - np.searchsorted(place, place)
        kept: NDArray[np.int64] = rows[(rank < self._translations) & np.isfinite(times)][:size]
        return kept

    def _members(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return every pair of the groups, and which of the groups given it belongs to."""
        begins = self._starts[groups]
        lengths = self._starts[groups + 1] - begins
        place = np.repeat(np.arange(len(groups)), lengths)
        within = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return place, self._rows[begins[place] + within]


def _picked(cumulative: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    found = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    rows: NDArray[np.int64] = np.minimum(found, len(cumulative) - 1)
    return rows
