"""Bootstrap intervals of figures, and paired tests between two models on the same items.

A figure's interval is the 2.5th to the 97.5th percentile of `RESAMPLES` resamples of its items (Efron's
percentile bootstrap; Koehn, EMNLP 2004, for paired differences). Draws depend on nothing but the number of
items and the row's name, so that two models are resampled alike and a run can be repeated. Rows whose items
are the same lines in other languages (``aligned``) share their draws: errors on one English sentence are
no independent errors, and the interval of the mean over languages would else be far too narrow.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.evaluation.items import Items, Numbers, mean_known

RESAMPLES = 1000
Interval = tuple[float, float]
Columns = Mapping[str, Items]


def interval(figures: Numbers) -> Interval:
    """Return the middle 95 % of resampled figures ``(b,)``; NaN without any."""
    if np.isnan(figures).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(figures, [2.5, 97.5])
    return float(low), float(high)


def resampled(rows: Mapping[str, Columns], *, aligned: bool) -> dict[str, dict[str, Numbers]]:
    """Return `RESAMPLES` figures per row and column."""
    figures = {}
    for row, columns in rows.items():
        seed = _seed(row, aligned)
        figures[row] = {name: items.figures(_counts(len(items), seed)) for name, items in columns.items()}
    return figures


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is of one model than of another, with its 95 % interval and p-value.

    ``p`` is of a two-sided permutation test; its least value is 1 / (`RESAMPLES` + 1).
    """

    value: float
    low: float
    high: float
    p: float


def paired_difference(ours: Mapping[str, Items], theirs: Mapping[str, Items], *, aligned: bool) -> Difference:
    """Return the difference, ours minus theirs, of the means over rows of one column.

    Raises ValueError where the two have other rows or numbers of items: then nothing is paired.
    """
    if {row: len(items) for row, items in ours.items()} != {row: len(items) for row, items in theirs.items()}:
        raise ValueError("the two sets of items are not of the same tests")
    seeds = {row: _seed(row, aligned) for row in ours}
    resamples, null, value = [], [], []
    for row, seed in seeds.items():
        a, b = ours[row], theirs[row]
        counts, swaps = _counts(len(a), seed), _swaps(len(a), seed)
        resamples.append(a.figures(counts) - b.figures(counts))
        null.append(a.null_differences(b, swaps))
        value.append(a.figure() - b.figure())
    observed = float(mean_known(np.array(value)))
    low, high = interval(mean_known(resamples))
    return Difference(observed, low, high, _p_value(observed, mean_known(null)))


def _p_value(observed: float, null: Numbers) -> float:
    as_large = np.count_nonzero(np.abs(null) >= abs(observed) - 1e-9)
    return float((1 + as_large) / (1 + len(null)))


def _seed(row: str, aligned: bool) -> int:
    return 0 if aligned else zlib.crc32(row.encode())


@lru_cache(maxsize=2)
def _counts(n: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each of n items is drawn in each resample, ``(RESAMPLES, n)``."""
    generator = np.random.default_rng((seed, n, 0))
    counts = np.empty((RESAMPLES, n), np.uint16)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    return counts


@lru_cache(maxsize=2)
def _swaps(n: int, seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng((seed, n, 1)).random((RESAMPLES, n), np.float32) < 0.5
