"""Dynamic programming within a band: the chain of beads with the largest sum of scores.

A cell (i, j) is reached from (i - a, j - b) by a bead of a source and b target sentences, so all beads
with a source sentence come from earlier rows: a row of cells is one gather, one addition and one maximum.
Beads with target sentences only stay in their row: a running maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, band_cells

_CHUNK_CELLS = 8_192  # what one chunk needs stays in the processor's cache
Floats = NDArray[np.float32]
Shape = tuple[int, int]
BlockScores = Callable[[int, int], Floats]
"""(first row, end row) → the score of every shape that ends in each cell of those rows, (shapes, cells)."""


@dataclass(frozen=True)
class Skips:
    """What a sentence without a counterpart costs; negative."""

    source: float
    target: float


def best_path(band: Band, shapes: Sequence[Shape], scores: BlockScores, skips: Skips) -> list[Shape]:
    """Return the sizes of the beads of the best chain from the first cell to the last, in order.

    Every sentence is in one bead: of one of the ``shapes``, (1, 0) or (0, 1). Equal sums: the first of
    the shapes, then (1, 0), then (0, 1). Time and memory grow with the number of cells.
    """
    moves = [*shapes, (1, 0)]
    best = np.full(band.cells + 1, -np.inf)  # the last stands for everything outside
    choices = np.empty(band.cells, np.int8)
    for begin, end in row_chunks(band):
        first, last = band.offsets[begin], band.offsets[end]
        origins = _origins(band, moves, begin, end)
        gains = np.concatenate(
            [scores(begin, end), np.full((1, last - first), skips.source, np.float32)]
        ).astype(np.float64)
        inserted = np.empty(last - first, bool)
        slope = skips.target * np.arange((band.high - band.low)[begin:end].max() + 1, dtype=np.float64)
        for row in range(begin, end):
            start, stop = band.offsets[row] - first, band.offsets[row + 1] - first
            reached = best.take(origins[:, start:stop])
            reached += gains[:, start:stop]
            values = np.maximum.reduce(reached, axis=0)
            if row == 0:
                values[0] = 0.0
            best[first + start : first + stop] = _with_insertions(
                values, slope[: stop - start], inserted[start:stop]
            )
        choices[first:last] = np.where(inserted, len(moves), (best.take(origins) + gains).argmax(axis=0))
    return _trace(band, [*moves, (0, 1)], choices)


def row_chunks(band: Band) -> list[tuple[int, int]]:
    """Return consecutive ranges of rows with about a fixed number of cells."""
    steps = np.arange(0, band.cells, _CHUNK_CELLS)
    starts = np.unique(np.searchsorted(band.offsets[:-1], steps)).tolist()
    return [(a, b) for a, b in zip(starts, [*starts[1:], band.rows], strict=True) if a < b]


def _origins(band: Band, moves: Sequence[Shape], begin: int, end: int) -> NDArray[np.int64]:
    """Return (moves, cells): where each move into each cell of the rows comes from."""
    rows, columns = band_cells(band, begin, end)
    origins = np.empty((len(moves), len(rows)), np.int64)
    for move, (a, b) in enumerate(moves):
        row, column = np.maximum(rows - a, 0), columns - b
        inside = (rows >= a) & (column >= band.low[row]) & (column <= band.high[row])
        origins[move] = np.where(inside, (band.offsets[:-1] - band.low)[row] + column, band.cells)
    return origins


def _with_insertions(
    values: NDArray[np.float64], slope: NDArray[np.float64], inserted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the best sums of a row when each cell may also come from its left; mark those that do."""
    values -= slope
    running = np.maximum.accumulate(values)
    np.greater(running, values, out=inserted)
    running += slope
    return running


def _trace(band: Band, moves: Sequence[Shape], choices: NDArray[np.int8]) -> list[Shape]:
    sizes = []
    i, j = band.rows - 1, int(band.high[-1])
    while i or j:
        move = moves[choices[band.offsets[i] + j - band.low[i]]]
        sizes.append(move)
        i, j = i - move[0], j - move[1]
    return sizes[::-1]
