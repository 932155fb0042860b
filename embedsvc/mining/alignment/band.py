"""The cells that the search may pass: for every source position a range of target positions.

Positions are those between sentences: 0 before the first, n after the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Band:
    """Row i has the cells ``low[i]`` to ``high[i]``, both included; neither ever decreases.

    ``offsets`` (rows + 1): where each row begins when all rows lie one after the other.
    """

    low: Ints
    high: Ints
    offsets: Ints

    @property
    def rows(self) -> int:
        return len(self.low)

    @property
    def cells(self) -> int:
        return int(self.offsets[-1])


def full_band(n: int, m: int) -> Band:
    """Return every cell of documents with n and m sentences."""
    return _band(np.zeros(n + 1, np.int64), np.full(n + 1, m, np.int64))


def band_around(anchors: NDArray[np.float64], n: int, m: int, radius: int) -> Band:
    """Return the cells within ``radius`` of the line through the anchors, (count, 2) ascending in both.

    Where the line climbs between two rows, as it does where many target sentences have no source, both
    rows hold the whole climb: nobody knows yet in which of them it happens.
    """
    path = np.concatenate([[[0.0, 0.0]], anchors, [[float(n), float(m)]]])
    rows = np.arange(n + 1, dtype=np.float64)
    before = np.interp(rows - 1, path[:, 0], path[:, 1])
    after = np.interp(rows + 1, path[:, 0], path[:, 1])
    low = np.clip(np.floor(before) - radius, 0, m).astype(np.int64)
    high = np.clip(np.ceil(after) + radius, 0, m).astype(np.int64)
    low[0], high[n] = 0, m
    return _band(np.minimum(low, low[::-1].max()), high)


def middle(band: Band, rows: int) -> tuple[Band, int, int]:
    """Return a band of the middle rows, at most so many, and the row and the column where it begins."""
    begin = max(band.rows - rows, 0) // 2
    end = min(begin + rows, band.rows)
    left = int(band.low[begin])
    return _band(band.low[begin:end] - left, band.high[begin:end] - left), begin, left


def band_cells(band: Band, begin: int, end: int) -> tuple[Ints, Ints]:
    """Return the row and the column of every cell of some rows, (cells,) each."""
    rows = np.repeat(np.arange(begin, end), band.high[begin:end] - band.low[begin:end] + 1)
    columns = np.arange(band.offsets[begin], band.offsets[end]) - (band.offsets[:-1] - band.low)[rows]
    return rows, columns


def _band(low: Ints, high: Ints) -> Band:
    low = np.minimum.accumulate(low[::-1])[::-1]
    high = np.maximum.accumulate(high)
    return Band(low, high, np.concatenate([[0], np.cumsum(high - low + 1)]))
