"""The neighbours between two shards: one block of the grid, and how blocks become lists for all rows.

A block knows nothing of the other blocks. It may be computed anywhere and at any time, and lists merged from
blocks are those that one large product would have given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexing.exact import nearest_both_ways
from indexing.neighbours import Neighbours


@dataclass(frozen=True, eq=False)
class BlockLists:
    """The ``k`` best of a block for each of its rows and columns; row numbers count within the shards."""

    x_to_y: Neighbours
    y_to_x: Neighbours


def block_lists(x: NDArray[np.float32], y: NDArray[np.float32], k: int) -> BlockLists:
    """Return the neighbours between all rows of ``x`` ``(n, dim)`` and all of ``y`` ``(m, dim)``."""
    both = nearest_both_ways(x, y, k)
    return BlockLists(both.x_to_y, both.y_to_x)


def merge_lists(parts: Iterable[tuple[int, Neighbours]], k: int) -> Neighbours:
    """Return the ``k`` best of several lists of the same rows: best first, lower row first among equals.

    Every part comes with the number of the first row that its row numbers count from; parts come in the order
    of these numbers. Slots without a neighbour have row -1 and score -inf.
    """
    best: Neighbours | None = None
    for first, part in parts:
        rows = np.where(part.rows >= 0, part.rows + np.int64(first), -1)
        part = Neighbours(part.scores, rows)
        best = part if best is None else _best_of(best, part, k)
    assert best is not None
    missing = k - best.rows.shape[1]
    if missing <= 0:
        return Neighbours(best.scores[:, :k], best.rows[:, :k])
    pad = ((0, 0), (0, missing))
    return Neighbours(
        np.pad(best.scores, pad, constant_values=-np.inf), np.pad(best.rows, pad, constant_values=-1)
    )


def _best_of(a: Neighbours, b: Neighbours, k: int) -> Neighbours:
    scores, rows = np.hstack([a.scores, b.scores]), np.hstack([a.rows, b.rows])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))
