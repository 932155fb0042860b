"""Coarse to fine: where the path runs, found on averages of many sentences and refined level by level.

Every level has a quarter of the sentences of the next, so all of them together cost a third of the last
(the idea of vecalign, Thompson & Koehn, EMNLP 2019, https://aclanthology.org/D19-1136/, after FastDTW).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, band_around, full_band
from embedsvc.mining.alignment.blocks import Blocks, mean_blocks
from embedsvc.mining.alignment.path import Skips, best_path
from embedsvc.mining.alignment.scoring import band_scores

Floats = NDArray[np.float32]
_FULL_CELLS = 90_000  # documents of fewer cells are searched whole
_GROUP = 4
_SHAPES = [(1, 1), (1, 2), (2, 1)]  # the sides may differ in length, locally too
_SKIPS = Skips(-0.05, -0.05)


def search_band(source: Floats, target: Floats, radius: int) -> Band:
    """Return the cells near the likely path of two documents, from their sentence vectors (n, dim), (m, dim).

    Short documents: all cells. Long ones: within ``radius`` of a path found on a quarter of the sentences.
    """
    return _band(_centred(source), _centred(target), radius)


def _band(source: Floats, target: Floats, radius: int) -> Band:
    n, m = len(source), len(target)
    if n * m <= _FULL_CELLS:
        return full_band(n, m)
    coarse = _grouped(source), _grouped(target)
    band = _band(*coarse, radius)
    blocks = [mean_blocks(side, np.ones(len(side)), 2) for side in coarse]
    anchors = _anchors(Blocks(blocks[0]), Blocks(blocks[1]), band)
    return band_around(anchors * _GROUP, n, m, radius + _GROUP)


def _centred(vectors: Floats) -> Floats:
    """Take out what all sentences of a document share, above all their language."""
    return vectors - vectors.mean(axis=0) if len(vectors) > 1 else vectors


def _grouped(vectors: Floats) -> Floats:
    """Return the sums of every four rows; the last may be of fewer."""
    groups = -(-len(vectors) // _GROUP)
    sums = np.zeros((groups, vectors.shape[1]), np.float32)
    for position in range(_GROUP):
        rows = vectors[position::_GROUP]
        sums[: len(rows)] += rows
    return sums


def _anchors(source: Blocks, target: Blocks, band: Band) -> NDArray[np.float64]:
    """Return the middle of every bead of the best path, (beads, 2), in rows and columns."""

    def scores(begin: int, end: int) -> Floats:
        return band_scores(source, target, None, band, (begin, end), _SHAPES)

    sizes = np.array(best_path(band, _SHAPES, scores, _SKIPS))
    ends = np.cumsum(sizes, axis=0)
    middles: NDArray[np.float64] = (ends - sizes / 2)[(sizes > 0).all(axis=1)]
    return middles
