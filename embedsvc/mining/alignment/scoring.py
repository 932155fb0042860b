"""How alike two blocks are, in every cell of a band and for every shape of bead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, band_cells
from embedsvc.mining.alignment.blocks import Blocks

Floats = NDArray[np.float32]
Shape = tuple[int, int]
_SAMPLES = 100
_PRODUCT_ROWS = 16  # of one matrix product: with more, more cells beside the band are computed in vain


@dataclass(frozen=True, eq=False)
class Chance:
    """Half the mean cosine of every block to random sentences of the other document, (sizes, sentences).

    Both halves are taken off a cosine: blocks that resemble everything (short, frequent, of one topic)
    then resemble nothing in particular.
    """

    source: Floats
    target: Floats

    @classmethod
    def between(cls, source: Blocks, target: Blocks) -> Chance:
        return cls(_half_mean_cosines(source, target), _half_mean_cosines(target, source))

    def part(self, source: slice, target: slice) -> Chance:
        """Return that of the blocks that end with these sentences."""
        return Chance(self.source[:, source], self.target[:, target])


def _half_mean_cosines(blocks: Blocks, other: Blocks) -> Floats:
    rows = np.random.default_rng(0).permutation(other.sentences)[:_SAMPLES]
    sample = other.vectors[0, np.sort(rows)] / 2
    if other.sentences > _SAMPLES:
        mean: Floats = blocks.vectors @ sample.mean(axis=0)
        return mean
    # Of a few sentences the translation itself is a large part: the nearest one is left out.
    cosines: Floats = blocks.vectors @ sample.T
    without_nearest: Floats = (cosines.sum(axis=2) - cosines.max(axis=2)) / max(len(rows) - 1, 1)
    return without_nearest


def above_chance(
    source: Blocks,
    target: Blocks,
    chance: Chance,
    sizes: Shape,
    ends: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[Floats, Floats]:
    """Return the cosines of pairs of blocks, by sizes and last sentences, and how far they exceed chance."""
    (a, b), (i, j) = sizes, ends
    cosines = np.einsum("ij,ij->i", source.vectors[a - 1, i], target.vectors[b - 1, j])
    return cosines, cosines - chance.source[a - 1, i] - chance.target[b - 1, j]


def band_scores(
    source: Blocks,
    target: Blocks,
    chance: Chance | None,
    band: Band,
    rows: tuple[int, int],
    shapes: Sequence[Shape],
) -> Floats:
    """Return (shapes, cells): the cosine above chance of the two blocks that end in each cell of the rows.

    Computed as products of a few rows with all columns that any of them has in the band. In row 0 and
    column 0 no block ends: what stands there is never read.
    """
    first = int(band.offsets[rows[0]])
    found = np.zeros((len(shapes), int(band.offsets[rows[1]]) - first), np.float32)
    row, column = band_cells(band, *rows)
    for begin, end in _product_rows(band, *rows):
        low, high = max(int(band.low[begin]), 1), int(band.high[end - 1]) + 1
        products = _products(source, target, (begin, end), (low, high), shapes)
        if chance is not None:
            _subtract_chance(products, chance, (begin, end), (low, high), shapes)
        cells = slice(int(band.offsets[begin]) - first, int(band.offsets[end]) - first)
        place = (row[cells] - begin) * (high - low) + np.maximum(column[cells] - low, 0)
        found[:, cells] = products.reshape(len(shapes), -1).take(place, axis=1)
    return found


def _product_rows(band: Band, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut the rows, but row 0, into runs whose rectangle has at most 4 times the cells of the band."""
    begin = max(begin, 1)
    while begin < end:
        stop = min(begin + _PRODUCT_ROWS, end)
        while stop > begin + 1 and _rectangle(band, begin, stop) > 4 * (
            band.offsets[stop] - band.offsets[begin]
        ):
            stop = (begin + stop) // 2
        yield begin, stop
        begin = stop


def _rectangle(band: Band, begin: int, stop: int) -> int:
    return (stop - begin) * int(band.high[stop - 1] - band.low[begin] + 1)


def _products(source: Blocks, target: Blocks, rows: Shape, columns: Shape, shapes: Sequence[Shape]) -> Floats:
    found = np.empty((len(shapes), rows[1] - rows[0], columns[1] - columns[0]), np.float32)
    for position, (a, b) in enumerate(shapes):
        left = source.vectors[a - 1, rows[0] - 1 : rows[1] - 1]
        right = target.vectors[b - 1, columns[0] - 1 : columns[1] - 1]
        np.matmul(left, right.T, out=found[position])
    return found


def _subtract_chance(
    products: Floats, chance: Chance, rows: Shape, columns: Shape, shapes: Sequence[Shape]
) -> None:
    a, b = np.array(shapes).T - 1
    products -= chance.source[a, rows[0] - 1 : rows[1] - 1][:, :, None]
    products -= chance.target[b, columns[0] - 1 : columns[1] - 1][:, None, :]
