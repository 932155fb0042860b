"""Margin scores of candidate pairs (Artetxe & Schwenk, ACL 2019, https://aclanthology.org/P19-1309/).

With b the average of the mean cosine of x to its k neighbours and of y to its k neighbours:

    ratio     cos(x, y) / b      1 = no better than the neighbourhood
    distance  cos(x, y) - b      0 = no better than the neighbourhood
    absolute  cos(x, y)          no margin: hubs and short texts score high

A text's neighbours include the candidate itself, as in LASER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from indexing import BothWays, Neighbours

Margin = Literal["ratio", "distance", "absolute"]
MARGINS: tuple[Margin, ...] = get_args(Margin)

RATIO_FLOOR = 0.01
"""The least neighbourhood mean that `ratio` divides by. A mean of cosines can be zero or negative; dividing
by it would give infinity, or rank a low cosine above a high one. With the floor every ratio is finite and
has the sign of its cosine; where both means are larger, as nearly always, the published formula is exact."""


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """Scored pairs: ``scores`` float32, ``source_rows`` and ``target_rows`` int64, all ``(pairs,)``."""

    scores: NDArray[np.float32]
    source_rows: NDArray[np.int64]
    target_rows: NDArray[np.int64]

    def take(self, chosen: NDArray[Any]) -> CandidatePairs:
        """Return the pairs at these positions, or where this mask is true."""
        return CandidatePairs(self.scores[chosen], self.source_rows[chosen], self.target_rows[chosen])


def margin_scores(
    cosines: NDArray[np.float32], mean_x: NDArray[np.float32], mean_y: NDArray[np.float32], kind: Margin
) -> NDArray[np.float32]:
    """Return the margin of each pair from its cosine and the neighbourhood means of its two texts.

    The three arrays have one shape, or shapes that broadcast to that of ``cosines``.
    Raises InvalidInputError for an unknown kind.
    """
    scores: NDArray[Any]
    if kind == "ratio":
        scores = cosines / ((np.maximum(mean_x, RATIO_FLOOR) + np.maximum(mean_y, RATIO_FLOOR)) / 2)
    elif kind == "distance":
        scores = cosines - (mean_x + mean_y) / 2
    elif kind == "absolute":
        scores = cosines
    else:
        raise InvalidInputError(f"margin {kind!r} is unknown; choose {', '.join(MARGINS)}", param="margin")
    return scores.astype(np.float32, copy=False)


def neighbourhood_means(neighbours: Neighbours) -> NDArray[np.float32]:
    """Return the mean score of each row's neighbours ``(n,)``; slots without a neighbour do not count."""
    found = neighbours.rows >= 0
    totals = np.where(found, neighbours.scores, 0).sum(axis=1)
    means: NDArray[np.float32] = totals / np.maximum(found.sum(axis=1), 1)
    return means.astype(np.float32, copy=False)


def candidate_margins(both: BothWays, kind: Margin) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the margins of all candidates, ``(n, k)`` for x to y and ``(m, k)`` for y to x.

    A slot without a neighbour has margin -inf.
    """
    mean_x, mean_y = neighbourhood_means(both.x_to_y), neighbourhood_means(both.y_to_x)
    return (
        _margins(both.x_to_y, mean_x, mean_y, kind),
        _margins(both.y_to_x, mean_y, mean_x, kind),
    )


def _margins(
    neighbours: Neighbours, own_mean: NDArray[np.float32], other_mean: NDArray[np.float32], kind: Margin
) -> NDArray[np.float32]:
    found = neighbours.rows >= 0
    cosines = np.where(found, neighbours.scores, 0)
    scores = margin_scores(cosines, own_mean[:, None], other_mean[np.where(found, neighbours.rows, 0)], kind)
    return np.where(found, scores, np.float32(-np.inf))


def best_candidates(both: BothWays, kind: Margin) -> tuple[CandidatePairs, CandidatePairs]:
    """Return the best pair of every x (forward) and of every y (backward), both as (x row, y row).

    Best by margin among the k candidates, which need not be the one with the highest cosine; among
    equal margins the higher cosine, then the lower row. A text without any candidate has no pair.
    """
    x_margins, y_margins = candidate_margins(both, kind)
    x_rows, y_rows, scores = _best(both.x_to_y, x_margins)
    forward = CandidatePairs(scores, x_rows, y_rows)
    y_rows, x_rows, scores = _best(both.y_to_x, y_margins)
    return forward, CandidatePairs(scores, x_rows, y_rows)


def _best(
    neighbours: Neighbours, margins: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return own row, other row and margin of the best candidate of each row that has one."""
    own = np.flatnonzero((neighbours.rows >= 0).any(axis=1))
    if not len(own):
        return own, own, np.empty(0, np.float32)
    best = margins[own].argmax(axis=1)
    return own, neighbours.rows[own, best], margins[own, best]
