"""The best of many scores, for the rows and for the columns of tiles, with little looked at twice.

The maxima of short chunks of a tile are compared with the worst entries of the lists first; only chunks that
may hold something better are opened. After the first tiles of a large product those are few, and reading the
tile once is all that selecting costs.

A list entry is one number, its key: in the high half the score, in the low half the row, counted down. So the
greater of two keys is the better entry, and of equal scores that of the lower row.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tile = NDArray[Any]
"""Scores ``(rows, columns)``, float32 or int32, C-contiguous."""

CHUNK = 16
"""Rows of a tile whose maximum is looked at first; tiles are best a multiple of it high."""

_LAST_ROW = 0xFFFFFFFF
_MOST_OPENED = 4  # where more than a quarter of the chunks would be opened, all scores are compared instead
_MOST_ENTERING = 4  # entries; where many times what lists hold would enter, half of the tile goes first


class BestLists:
    """The ``k`` best entries of each of ``n`` owners, in no order: ``keys`` ``(n, k)``, ``floors`` ``(n,)``.

    A score must exceed an owner's floor, its worst entry, to enter.
    """

    def __init__(self, n: int, k: int, dtype: Any) -> None:
        """Begin with empty lists for scores of this type, float32 or int32."""
        self.floors = np.full(n, _least(np.dtype(dtype)), dtype)
        self.empty = _keys(np.full(1, _least(np.dtype(dtype))), np.array([_LAST_ROW]))[0]
        self.keys = np.full((n, k), self.empty)

    def full(self) -> bool:
        """Whether no list has room left."""
        return bool((self.floors > _least(self.floors.dtype)).all())

    def part(self, start: int, stop: int) -> BestLists:
        """Return the lists of some owners, in the same memory."""
        lists = object.__new__(BestLists)
        lists.empty, lists.keys, lists.floors = self.empty, self.keys[start:stop], self.floors[start:stop]
        return lists

    def copy(self) -> BestLists:
        """Return the same lists in memory of their own."""
        lists = self.part(0, len(self.keys))
        lists.keys, lists.floors = self.keys.copy(), self.floors.copy()
        return lists

    def add(self, owners: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
        """Let new entries, ``(candidates,)`` each, compete for the lists of their owners."""
        if not len(owners):
            return
        n, k = self.keys.shape
        order = np.argsort(owners.astype(np.uint16) if n <= 1 << 16 else owners, kind="stable")
        counts = np.bincount(owners, minlength=n)
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        # One line per touched list: its entries, then the new ones, then nothing.
        width = k + int(counts.max())
        lines = np.full((len(touched), width), self.empty)
        lines[:, :k] = self.keys[touched]
        places = np.arange(len(touched)) * width + k - (np.cumsum(counts) - counts)
        lines.reshape(-1)[np.repeat(places, counts) + np.arange(len(order))] = keys[order]
        self._keep(touched, lines)

    def merge(self, other: BestLists) -> None:
        """Let the entries of ``other``, lists of the same owners, compete too."""
        self._keep(np.arange(len(self.keys)), np.hstack([self.keys, other.keys]))

    def ranked(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return scores and rows ``(n, k)``, best first; a slot without an entry has row -1."""
        keys = np.sort(self.keys, axis=1)[:, ::-1]
        rows = _LAST_ROW - (keys & _LAST_ROW)
        rows[keys == self.empty] = -1
        return _scores(keys, self.floors.dtype), rows

    def _keep(self, touched: NDArray[np.int64], lines: NDArray[np.int64]) -> None:
        cut = lines.shape[1] - self.keys.shape[1]
        lines.partition(cut, axis=1)
        self.keys[touched] = lines[:, cut:]
        self.floors[touched] = _scores(lines[:, cut], self.floors.dtype)


def take_tile(tile: Tile, rows: BestLists, columns: BestLists | None, first: tuple[int, int]) -> None:
    """Let the scores of a tile compete for the lists of its rows and, if wanted, of its columns.

    ``first`` are the numbers of the tile's first row and column among all. The tiles of a list must come in
    ascending order of these numbers: a score that only equals a list's worst entry is then of a higher row,
    and stays out.
    """
    height = len(tile) - len(tile) % CHUNK
    if height:
        chunk = CHUNK if rows.full() and (columns is None or columns.full()) else 1
        _take(tile[:height], chunk, rows.part(0, height), columns, first)
    if height < len(tile):
        _take(tile[height:], 1, rows.part(height, len(tile)), columns, (first[0] + height, first[1]))


def _take(tile: Tile, chunk: int, rows: BestLists, columns: BestLists | None, first: tuple[int, int]) -> None:
    width = tile.shape[1]
    row_floors = _floors(tile, rows).reshape(-1, chunk)
    column_floors = None if columns is None else _floors(tile.T, columns)
    maxima = tile.reshape(-1, chunk, width).max(axis=1) if chunk > 1 else tile
    above = maxima > row_floors.min(axis=1)[:, None]
    if column_floors is not None:
        above |= maxima > column_floors
    opened = np.flatnonzero(above)
    if chunk > 1 and len(opened) * _MOST_OPENED > above.size:
        _take(tile, 1, rows, columns, first)
        return
    room = rows.keys.size + (0 if columns is None else columns.keys.size)
    if chunk == 1 and len(opened) > _MOST_ENTERING * room:
        _take_halves(tile, rows, columns, first)
        return
    scores = _Opened(tile, chunk, opened)
    row, column, keys = scores.better(row_floors.T.take(scores.group, axis=1), of_rows=True, first=first)
    rows.add(row, keys)
    if columns is not None and column_floors is not None:
        row, column, keys = scores.better(column_floors[scores.column], of_rows=False, first=first)
        columns.add(column, keys)


class _Opened:
    """The scores of the chunks that were opened: ``values`` ``(chunk, opened)``."""

    def __init__(self, tile: Tile, chunk: int, opened: NDArray[np.int64]) -> None:
        width = tile.shape[1]
        self.chunk = chunk
        self.group, self.column = np.divmod(opened, width)
        places = opened + self.group * ((chunk - 1) * width)
        self.values = tile.reshape(-1)[places + (np.arange(chunk) * width)[:, None]]

    def better(
        self, floors: NDArray[Any], *, of_rows: bool, first: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row, column and key, for the list of its row or of its column, of every score above its floor."""
        chosen = np.flatnonzero(self.values > floors)
        inside, place = np.divmod(chosen, self.values.shape[1]) if len(chosen) else (chosen, chosen)
        row, column = self.group[place] * self.chunk + inside, self.column[place]
        others = column + first[1] if of_rows else row + first[0]
        return row, column, _keys(self.values.reshape(-1)[chosen], others)


def _take_halves(tile: Tile, rows: BestLists, columns: BestLists | None, first: tuple[int, int]) -> None:
    """Take a tile in two steps, so that the first fills the lists and spares the second much work."""
    height, width = tile.shape
    top, left = first
    if height > width:
        half = height // 2
        take_tile(tile[:half], rows.part(0, half), columns, first)
        take_tile(tile[half:], rows.part(half, height), columns, (top + half, left))
        return
    half = width // 2
    for start, stop in ((0, half), (half, width)):
        part = np.ascontiguousarray(tile[:, start:stop])
        take_tile(part, rows, None if columns is None else columns.part(start, stop), (top, left + start))


def _floors(tile: Tile, lists: BestLists) -> NDArray[Any]:
    """What a score of the tile, whose rows own the lists, must exceed to be worth looking at.

    Where lists are not full yet, at least ``k`` scores of the tile do exceed it.
    """
    k = lists.keys.shape[1]
    if tile.shape[1] < k or lists.full():
        return lists.floors
    bound = _low_bound(tile, k)
    below = np.nextafter(bound, np.float32(-np.inf)) if bound.dtype.kind == "f" else bound - 1
    floors: NDArray[Any] = np.maximum(lists.floors, below)
    return floors


def _low_bound(tile: Tile, k: int) -> NDArray[Any]:
    """A score ``(n,)`` that at least ``k`` of each row reach: the k-th best of group maxima."""
    columns = tile.shape[1]
    groups = min(columns, 8 * k)
    slices = [tile[:, start : start + groups] for start in range(0, columns - groups + 1, groups)]
    maxima: NDArray[Any] = functools.reduce(np.maximum, slices)
    return np.partition(maxima, groups - k, axis=1)[:, groups - k]


def _least(dtype: np.dtype[Any]) -> Any:
    """What is worse than every score."""
    return np.float32(-np.inf) if dtype.kind == "f" else np.int32(np.iinfo(np.int32).min)


def _keys(scores: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if scores.dtype.kind == "f":
        # The bits of floats, as whole numbers, are in the order of the floats once those of negative ones
        # are turned round. Adding zero makes -0.0 the 0.0 that it equals.
        bits = (scores + np.float32(0)).view(np.int32)
        scores = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys: NDArray[np.int64] = (scores.astype(np.int64) << 32) | (_LAST_ROW - rows)
    return keys


def _scores(keys: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    bits = (keys >> 32).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32) if dtype.kind == "f" else bits
