"""Candidates for the nearest neighbours of two sets: every score once, tile by tile, for both directions.

What a product computes is its own affair (float32 here, int8 in `int8_product`): tiles of scores between its
rows and its columns, which need only order the pairs nearly as the true scores do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.selection import BestLists, Tile, take_tile

Progress = Callable[[int, int], None]
Scores = Callable[[int, int], Tile]
"""The scores of some rows, from one number to before another, against the columns chosen."""


class Product(Protocol):
    """All scores of ``height`` rows against ``width`` columns, which nobody holds at once."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def dtype(self) -> Any: ...

    def columns(self, start: int, stop: int) -> Scores:
        """Make ready to compute scores against these columns, on several threads at once."""


@dataclass(frozen=True, eq=False)
class FloatProduct:
    """Inner products of float32 ``rows`` ``(height, dim)`` and ``others`` ``(width, dim)``."""

    rows: NDArray[np.float32]
    others: NDArray[np.float32]
    dtype: Any = np.float32

    @property
    def height(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return len(self.others)

    def columns(self, start: int, stop: int) -> Scores:
        chosen = self.others[start:stop].T
        return lambda top, bottom: self.rows[top:bottom] @ chosen


@dataclass(frozen=True)
class Pass:
    """How candidates are looked for: ``keep`` for each row and column, in tiles of these rows and columns."""

    keep: int
    tile: tuple[int, int]
    threads: int = 1


def candidates(
    product: Product, options: Pass, *, both: bool = True, progress: Progress | None = None
) -> tuple[BestLists, BestLists | None]:
    """Return the candidates of all rows and, with ``both``, of all columns.

    They depend neither on tiles nor on threads, as far as the scores do not. ``progress`` is called with the
    columns done and all.
    """
    rows = BestLists(product.height, min(options.keep, product.width), product.dtype)
    columns = BestLists(product.width, min(options.keep, product.height), product.dtype) if both else None
    with ThreadPoolExecutor(options.threads) as pool:
        for left in range(0, product.width, options.tile[1]):
            right = min(left + options.tile[1], product.width)
            part = None if columns is None else columns.part(left, right)
            _take_columns(product.columns(left, right), left, rows, part, options, pool)
            if progress:
                progress(right, product.width)
    return rows, columns


def _take_columns(
    scores: Scores,
    left: int,
    rows: BestLists,
    columns: BestLists | None,
    options: Pass,
    pool: ThreadPoolExecutor,
) -> None:
    """Take all tiles of some columns; every thread has its own rows, and its own lists of the columns."""

    def take(top: int, bottom: int, own: BestLists | None) -> None:
        for start in range(top, bottom, options.tile[0]):
            stop = min(start + options.tile[0], bottom)
            take_tile(scores(start, stop), rows.part(start, stop), own, (start, left))

    stripes = list(_stripes(len(rows.keys), options))
    if len(stripes) == 1:
        take(*stripes[0], columns)
        return
    lists = [None if columns is None else columns.copy() for _ in stripes]  # all before any is merged
    jobs = [pool.submit(take, *bounds, own) for bounds, own in zip(stripes, lists, strict=True)]
    for job, own in zip(jobs, lists, strict=True):
        job.result()
        if columns is not None and own is not None:
            columns.merge(own)


def _stripes(rows: int, options: Pass) -> Iterator[tuple[int, int]]:
    """Divide the rows among the threads, by whole tiles."""
    height = options.tile[0] * max(1, math.ceil(rows / options.tile[0] / options.threads))
    for top in range(0, rows, height):
        yield top, min(top + height, rows)
