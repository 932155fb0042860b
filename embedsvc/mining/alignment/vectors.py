"""Align two documents given as vectors of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.band import Band, middle
from embedsvc.mining.alignment.beads import Bead, bead_shapes, spans
from embedsvc.mining.alignment.blocks import Blocks, check_widths, checked_blocks
from embedsvc.mining.alignment.coarse import search_band
from embedsvc.mining.alignment.model import SKIPS, BeadScores, Model, first_model, fitted_model
from embedsvc.mining.alignment.path import Shape, best_path
from embedsvc.mining.alignment.scoring import Chance, above_chance

MAX_BEAD = 5
_MOST_SENTENCES_OF_A_SIDE = 16
_RADIUS = 5
_LEARNT_ROWS = 1_501
_FIRST_SHAPES = [(1, 1), (1, 2), (2, 1)]


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
    blocks = (
        checked_blocks(source, source_lengths, "source"),
        checked_blocks(target, target_lengths, "target"),
    )
    return align_blocks(*blocks, max_bead=max_bead)


def align_blocks(source: Blocks, target: Blocks, *, max_bead: int = MAX_BEAD) -> list[Bead]:
    """As `align_vectors`, for checked blocks."""
    check_widths(source, target)
    check_max_bead(max_bead)
    shapes = [(a, b) for a, b in bead_shapes(max_bead) if a <= source.sizes and b <= target.sizes]
    band = search_band(source.vectors[0], target.vectors[0], _RADIUS)
    chance = Chance.between(source, target)
    scores = BeadScores(source, target, chance, _learnt_model(source, target, chance, band), shapes)
    sizes = best_path(band, shapes, partial(scores.of_rows, band), SKIPS)
    return _beads(source, target, chance, sizes)


def _learnt_model(source: Blocks, target: Blocks, chance: Chance, band: Band) -> Model:
    """Return the model fitted to a first, simple alignment of the middle of the documents."""
    model = first_model(source, target, chance)
    shapes = [(a, b) for a, b in _FIRST_SHAPES if a <= source.sizes and b <= target.sizes]
    part, row, column = middle(band, _LEARNT_ROWS)
    rows, columns = slice(row, row + part.rows - 1), slice(column, column + int(part.high[-1]))
    inner = source.part(rows), target.part(columns), chance.part(rows, columns)
    scores = BeadScores(*inner, model, shapes)
    return fitted_model(model, *inner, best_path(part, shapes, partial(scores.of_rows, part), SKIPS))


def check_max_bead(max_bead: int) -> None:
    """Raise InvalidInputError unless it is a possible number of sentences."""
    if not 1 <= max_bead <= _MOST_SENTENCES_OF_A_SIDE:
        raise InvalidInputError(
            f"max_bead = {max_bead}; it must be from 1 to {_MOST_SENTENCES_OF_A_SIDE}", param="max_bead"
        )


def _beads(source: Blocks, target: Blocks, chance: Chance, sizes: Sequence[Shape]) -> list[Bead]:
    moves = np.array(sizes, np.int64)
    last = np.cumsum(moves, axis=0) - 1
    cosines, scores = np.zeros(len(moves)), np.zeros(len(moves))
    for shape in set(sizes):
        if all(shape):
            chosen = np.flatnonzero((moves == shape).all(axis=1))
            ends = last[chosen, 0], last[chosen, 1]
            cosines[chosen], scores[chosen] = above_chance(source, target, chance, shape, ends)
    return [
        Bead(*span, score, cosine)
        for span, score, cosine in zip(spans(sizes), scores.tolist(), cosines.tolist(), strict=True)
    ]
