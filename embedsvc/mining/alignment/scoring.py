"""How well two blocks match, for every shape of bead and every cell of a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, band_cells
from embedsvc.mining.alignment.blocks import Blocks
from embedsvc.mining.alignment.path import Skips

Floats = NDArray[np.float32]
Shape = tuple[int, int]
_SAMPLES = 100
_PRODUCT_ROWS = 32  # rows of one matrix product; more compute too much beside the band, fewer too little at once


def chance_cosines(blocks: Blocks, other: Blocks, *, seed: int = 42) -> Floats:
    """Return (sizes, sentences): the mean cosine of every block to random sentences of the other document."""
    rows = np.random.default_rng(seed).permutation(other.sentences)[:_SAMPLES]
    centre = other.vectors[0, np.sort(rows)].mean(axis=0)
    mean: Floats = blocks.vectors @ centre
    return mean


def band_cosines(
    source: Blocks, target: Blocks, band: Band, rows: tuple[int, int], shapes: Sequence[Shape]
) -> Floats:
    """Return (shapes, cells): the cosine of the two blocks that end in each cell of the rows; 0 without blocks.

    Computed as products of a few rows with all columns that any of them has in the band.
    """
    first = int(band.offsets[rows[0]])
    found = np.zeros((len(shapes), int(band.offsets[rows[1]]) - first), np.float32)
    for begin, end in _product_rows(band, *rows):
        low, high = max(int(band.low[begin]), 1), int(band.high[end - 1])
        if high < low:
            continue
        products = _products(source, target, (begin, end), (low, high), shapes)
        for row in range(begin, end):
            left, right = max(int(band.low[row]), 1), int(band.high[row])
            start = int(band.offsets[row]) - first + left - int(band.low[row])
            found[:, start : start + right - left + 1] = products[:, row - begin, left - low : right - low + 1]
    return found


def _product_rows(band: Band, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut the rows (without row 0, where no block ends) into runs whose rectangle is at most 4 times the band's cells."""
    runs = []
    begin = max(begin, 1)
    while begin < end:
        stop = begin + 1
        while stop < min(end, begin + _PRODUCT_ROWS):
            rectangle = (stop + 1 - begin) * int(band.high[stop] - band.low[begin] + 1)
            if rectangle > 4 * int(band.offsets[stop + 1] - band.offsets[begin]):
                break
            stop += 1
        runs.append((begin, stop))
        begin = stop
    return runs


def _products(
    source: Blocks, target: Blocks, rows: tuple[int, int], columns: tuple[int, int], shapes: Sequence[Shape]
) -> Floats:
    """Return (shapes, rows, columns) of cosines; ``columns`` includes its end."""
    found = np.empty((len(shapes), rows[1] - rows[0], columns[1] - columns[0] + 1), np.float32)
    for position, (a, b) in enumerate(shapes):
        if a > source.sizes or b > target.sizes:
            found[position] = 0
            continue
        np.matmul(
            source.vectors[a - 1, rows[0] - 1 : rows[1] - 1],
            target.vectors[b - 1, columns[0] - 1 : columns[1]].T,
            out=found[position],
        )
    return found


@dataclass(frozen=True, eq=False)
class Scoring:
    """The scores of beads between two documents, made for them."""

    source: Blocks
    target: Blocks
    shapes: Sequence[Shape]
    source_chance: Floats
    target_chance: Floats
    skips: Skips

    @classmethod
    def of(cls, source: Blocks, target: Blocks, shapes: Sequence[Shape]) -> Scoring:
        chance = chance_cosines(source, target), chance_cosines(target, source)
        return cls(source, target, shapes, *chance, Skips(-0.05, -0.05))

    def of_band(self, band: Band, rows: tuple[int, int]) -> Floats:
        """Return (shapes, cells): the score of every shape that ends in each cell of the rows."""
        scores = band_cosines(self.source, self.target, band, rows, self.shapes)
        row, column = band_cells(band, *rows)
        i, j = np.maximum(row - 1, 0), np.maximum(column - 1, 0)
        for position, (a, b) in enumerate(self.shapes):
            scores[position] -= (self.source_chance[a - 1, i] + self.target_chance[b - 1, j]) / 2
        return scores
