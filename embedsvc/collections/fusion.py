"""Several rankings of the same rows into one: by ranks, or by scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedsvc.errors import InvalidInputError

Ranking = tuple[ArrayLike, ArrayLike]  # rows (n,) without repeats, scores (n,); best first
Fused = tuple[NDArray[np.int64], NDArray[np.float64]]


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None, k: float = 60
) -> Fused:
    """Return rows (m,) and scores (m,), best first: the sum of weight / (k + rank) over the rankings with the row.

    Ranks count from 1; scores are not looked at. Ties go to the lower row.
    Raises InvalidInputError for a ranking that repeats a row, and for weights that do not fit.
    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet …", SIGIR 2009.
    """
    return _fused(rankings, weights, lambda scores: 1 / (k + np.arange(1, len(scores) + 1)))


def score_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    """Return rows (m,) and scores (m,), best first: the weighted mean of each ranking's scores scaled to 0..1.

    A ranking's scores are scaled so that its best is 1 and its last 0; where all are equal they are 1. A
    row that a ranking lacks gets 0 from it: it is no better than the last that was found. Ties go to the lower row.
    Raises InvalidInputError for a ranking that repeats a row or has a score that is not finite, and for
    weights that do not fit. Lee, "Analyses of multiple evidence combination", SIGIR 1997 (CombSUM).
    """
    rows, scores = _fused(rankings, weights, _min_max)
    total = sum(_checked_weights(rankings, weights))
    return rows, scores / total if total else scores


def _fused(
    rankings: Sequence[Ranking],
    weights: Sequence[float] | None,
    gain: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Fused:
    checked = [_checked(ranking, position) for position, ranking in enumerate(rankings)]
    if not checked:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    rows, inverse = np.unique(np.concatenate([rows for rows, _ in checked]), return_inverse=True)
    gains = [
        weight * gain(scores)
        for weight, (_, scores) in zip(_checked_weights(rankings, weights), checked, strict=True)
    ]
    fused = np.bincount(inverse, weights=np.concatenate(gains), minlength=len(rows))
    order = np.lexsort((rows, -fused))
    return rows[order], fused[order]


def _min_max(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(scores) == 0 or scores.max() == scores.min():
        return np.ones(len(scores))
    scaled: NDArray[np.float64] = (scores - scores.min()) / (scores.max() - scores.min())
    return scaled
