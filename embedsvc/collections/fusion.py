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
    """Return rows (m,) and scores (m,), best first: the sum of weight / (k + rank) over the rankings.

    Ranks count from 1; scores are not looked at. Ties go to the lower row.
    Raises InvalidInputError for a ranking that repeats a row, and for weights that do not fit.
    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet …", SIGIR 2009.
    """
    return _fused(rankings, weights, lambda scores: 1 / (k + np.arange(1, len(scores) + 1)))


def score_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Fused:
    """Return rows (m,) and scores (m,), best first: the weighted mean of the scores, scaled to 0..1.

    A ranking's highest score becomes 1 and its lowest 0; where all are equal they become 1. A row that a
    ranking lacks gets 0 from it: it is taken for no better than the last that was found. Ties go to the
    lower row. Higher is better: negate what FTS5's bm25() gives.
    Raises InvalidInputError for a ranking that repeats a row or has a score that is not finite, and for
    weights that do not fit. Lee, "Analyses of multiple evidence combination", SIGIR 1997 (CombSUM).
    """
    rows, scores = _fused(rankings, weights, _min_max)
    return rows, scores / _checked_weights(len(rankings), weights).sum() if len(rows) else scores


def _fused(
    rankings: Sequence[Ranking],
    weights: Sequence[float] | None,
    gain: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Fused:
    checked = [_checked(ranking, position) for position, ranking in enumerate(rankings)]
    each = _checked_weights(len(checked), weights)
    if not checked:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    gains = [weight * gain(scores) for weight, (_, scores) in zip(each, checked, strict=True)]
    rows, places = np.unique(np.concatenate([rows for rows, _ in checked]), return_inverse=True)
    fused = np.zeros(len(rows))
    # Sorted first, so that the last bit of a sum, and with it a tie, does not hang on the rankings' order.
    everything = np.concatenate(gains)
    order = np.lexsort((everything, places))
    np.add.at(fused, places[order], everything[order])
    best = np.lexsort((rows, -fused))
    return rows[best], fused[best]


def _min_max(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    halves = scores / 2  # their difference does not overflow
    lowest, highest = halves.min(initial=np.inf), halves.max(initial=-np.inf)
    if highest <= lowest:
        return np.ones(len(scores))
    scaled: NDArray[np.float64] = (halves - lowest) / (highest - lowest)
    return scaled


def _checked(ranking: Ranking, position: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows, scores = np.asarray(ranking[0], np.int64), np.asarray(ranking[1], np.float64)
    if rows.ndim != 1 or rows.shape != scores.shape:
        raise InvalidInputError(
            f"rankings[{position}] has rows {rows.shape} and scores {scores.shape}; expected (n,) and (n,)"
        )
    if len(np.unique(rows)) < len(rows):
        raise InvalidInputError(f"rankings[{position}] has a row twice")
    if not np.isfinite(scores).all():
        raise InvalidInputError(f"rankings[{position}] has a score that is not finite")
    return rows, scores


def _checked_weights(count: int, weights: Sequence[float] | None) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(count)
    checked = np.asarray(weights, np.float64)
    if checked.shape != (count,):
        raise InvalidInputError(f"{len(weights)} weights for {count} rankings")
    if not np.isfinite(checked).all() or (checked < 0).any() or (count and not checked.any()):
        raise InvalidInputError(f"weights {list(weights)}: expected finite numbers from 0, one above 0")
    return checked
