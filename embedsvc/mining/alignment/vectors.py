"""Align two documents given as vectors of their blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.beads import Bead, bead_shapes, spans
from embedsvc.mining.alignment.blocks import Blocks, check_widths, checked_blocks
from embedsvc.mining.alignment.coarse import search_band
from embedsvc.mining.alignment.path import Shape, best_path
from embedsvc.mining.alignment.scoring import Scoring

_RADIUS = 6
MAX_BEAD = 5
MOST_SENTENCES_OF_A_SIDE = 16


def align_vectors(
    source: ArrayLike,
    target: ArrayLike,
    *,
    source_lengths: ArrayLike | None = None,
    target_lengths: ArrayLike | None = None,
    max_bead: int = MAX_BEAD,
) -> list[Bead]:
    """Return the beads of two documents in order; every sentence is in exactly one.

    ``source`` is (sizes, n, dim): row [a - 1, i] is the unit vector of the a sentences that end with
    sentence i (rows with i < a - 1 are not read), and ``target`` (sizes, m, dim) likewise; the lengths,
    (n,) and (m,), are those of the sentences in characters. A side of a bead has at most ``max_bead``
    sentences, and no more than there are sizes; both sides together at most one more.
    Time and memory are linear in n + m. Raises InvalidInputError and DimensionMismatchError.
    """
    blocks = checked_blocks(source, source_lengths, "source"), checked_blocks(target, target_lengths, "target")
    return align_blocks(*blocks, max_bead=max_bead)


def align_blocks(source: Blocks, target: Blocks, *, max_bead: int = MAX_BEAD) -> list[Bead]:
    """As `align_vectors`, for checked blocks."""
    check_widths(source, target)
    check_max_bead(max_bead)
    shapes = [(a, b) for a, b in bead_shapes(max_bead) if a <= source.sizes and b <= target.sizes]
    band = search_band(source.vectors[0], target.vectors[0], _RADIUS)
    scoring = Scoring.of(source, target, shapes)
    sizes = best_path(band, shapes, lambda begin, end: scoring.of_band(band, (begin, end)), scoring.skips)
    return _beads(source, target, sizes, scoring)


def check_max_bead(max_bead: int) -> None:
    """Raise InvalidInputError unless it is a possible number of sentences."""
    if not 1 <= max_bead <= MOST_SENTENCES_OF_A_SIDE:
        raise InvalidInputError(
            f"max_bead = {max_bead}; it must be from 1 to {MOST_SENTENCES_OF_A_SIDE}", param="max_bead"
        )


def _beads(source: Blocks, target: Blocks, sizes: list[Shape], scoring: Scoring) -> list[Bead]:
    ends = np.cumsum(np.array(sizes, np.int64), axis=0)
    found = []
    for (a, b), (i, j), (rows, columns) in zip(sizes, ends.tolist(), spans(sizes), strict=True):
        if not (a and b):
            found.append(Bead(rows, columns))
            continue
        cosine = float(source.vectors[a - 1, i - 1] @ target.vectors[b - 1, j - 1])
        chance = (scoring.source_chance[a - 1, i - 1] + scoring.target_chance[b - 1, j - 1]) / 2
        found.append(Bead(rows, columns, float(cosine - chance), cosine))
    return found
