"""The neighbours between two shards: one block of the grid, and how blocks become lists for all rows.

A block knows nothing of the other blocks. It may be computed anywhere and at any time, and lists merged from
blocks are those that one large product would have given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexing.methods import Candidates, Method, Work, find_candidates
from indexing.neighbours import Neighbours
from indexing.rescore import rescored


@dataclass(frozen=True, eq=False)
class Lists:
    """The best of a block for one of its shards, and what no score left out exceeds: ``ceilings`` ``(n,)``.

    Row numbers count from the first row of the other shard.
    """

    neighbours: Neighbours
    ceilings: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BlockLists:
    """What a block found, for its rows of ``x`` and for those of ``y``."""

    x: Lists
    y: Lists


def block_lists(x: NDArray[np.float32], y: NDArray[np.float32], method: Method, work: Work) -> BlockLists:
    """Return the ``work.k`` nearest of ``y`` ``(m, dim)`` for each of ``x`` ``(n, dim)``, and the reverse.

    Scores are float32 inner products of the vectors given, whatever the method. ``work.progress`` is called
    with the rows of ``x`` done and all.

    Raises:
        IndexingError: the method does not work on this machine, or not on these vectors.
    """
    x_found, y_found = find_candidates(x, y, method, work)
    return BlockLists(_lists(x, y, x_found, work.k), _lists(y, x, y_found, work.k))


def _lists(own: NDArray[np.float32], others: NDArray[np.float32], found: Candidates, k: int) -> Lists:
    return Lists(rescored(own, others, found.rows, k), found.ceilings)


@dataclass(frozen=True, eq=False)
class Merged:
    """The lists of some rows over all blocks; ``certified`` ``(n,)`` says which are proven to be exact."""

    neighbours: Neighbours
    certified: NDArray[np.bool_]


def merge_lists(parts: Iterable[tuple[int, Lists]], k: int) -> Merged:
    """Return the ``k`` best of several lists of the same rows: best first, lower row first among equals.

    Every part comes with the number that the first row of its other shard has among all; parts come in the
    order of these numbers, and there is at least one. Slots without a neighbour have row -1 and score -inf.
    """
    best: Neighbours | None = None
    ceilings: NDArray[np.float32] = np.full(1, -np.inf, np.float32)
    for first, part in parts:
        rows = np.where(part.neighbours.rows >= 0, part.neighbours.rows + np.int64(first), -1)
        numbered = Neighbours(part.neighbours.scores, rows)
        best = numbered if best is None else _best_of(best, numbered, k)
        ceilings = np.maximum(ceilings, part.ceilings)
    if best is None:
        raise ValueError("no lists to merge")
    pad = ((0, 0), (0, max(0, k - best.rows.shape[1])))
    scores = np.pad(best.scores, pad, constant_values=-np.inf)
    rows = np.pad(best.rows, pad, constant_values=-1)
    return Merged(Neighbours(scores, rows), scores[:, -1] >= ceilings)


def _best_of(a: Neighbours, b: Neighbours, k: int) -> Neighbours:
    scores, rows = np.hstack([a.scores, b.scores]), np.hstack([a.rows, b.rows])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))
