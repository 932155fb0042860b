"""Margin scores of candidate pairs (Artetxe & Schwenk, ACL 2019, https://aclanthology.org/P19-1309/).

With b the average of the mean cosine of x to its k neighbours and of y to its k neighbours:

    ratio     cos(x, y) / b      1 = no better than the neighbourhood
    distance  cos(x, y) - b      0 = no better than the neighbourhood
    absolute  cos(x, y)          no margin: hubs and short texts score high

A text's neighbours include the candidate itself, as in LASER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.records import Direction
from indexing import BothWays, Neighbours

Margin = Literal["ratio", "distance", "absolute"]
MARGINS: tuple[Margin, ...] = get_args(Margin)

RATIO_FLOOR = 0.01
"""The least neighbourhood mean that `ratio` divides by. A mean of cosines can be zero or negative; dividing
by it would give infinity, or rank a low cosine above a high one. With the floor every ratio is finite and
has the sign of its cosine; where both means are larger, as nearly always, the published formula is exact."""


FORWARD, BACKWARD = 1, 2
DIRECTION_NAMES: dict[int, Direction] = {1: "forward", 2: "backward", 3: "both"}
"""Direction codes are bits: a pair found from both sides has both."""

_Columns = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]

_CHUNK_ROWS = 131_072  # rows of the (memory-mapped) lists taken into memory at once


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """Scored pairs, all arrays ``(pairs,)``: ``scores`` and ``cosines`` float32, the rows int64.

    ``directions`` int8: from which side's list a pair comes, `FORWARD` (the source's), `BACKWARD` or both.
    """

    scores: NDArray[np.float32]
    source_rows: NDArray[np.int64]
    target_rows: NDArray[np.int64]
    cosines: NDArray[np.float32]
    directions: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: NDArray[Any]) -> CandidatePairs:
        """Return the pairs at these positions, or where this mask is true."""
        return CandidatePairs(*(column[chosen] for column in self._columns()))

    def best_first(self) -> CandidatePairs:
        """Return the pairs by falling score; equal scores by source row, then target row."""
        return self.take(np.lexsort((self.target_rows, self.source_rows, -self.scores)))

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.scores, self.source_rows, self.target_rows, self.cosines, self.directions


def merged(forward: CandidatePairs, backward: CandidatePairs) -> CandidatePairs:
    """Return every pair of the two lists once, best first; one that is in both has both directions."""
    columns = zip(forward._columns(), backward._columns(), strict=True)
    pairs = CandidatePairs(*(np.concatenate(column) for column in columns))
    keys = (pairs.source_rows << 32) | pairs.target_rows  # rows stay below 2**31
    order = np.argsort(keys, kind="stable")
    first = np.diff(keys[order], prepend=-1) != 0
    pairs = pairs.take(order)
    starts = np.flatnonzero(first)
    directions = np.bitwise_or.reduceat(pairs.directions, starts) if len(starts) else pairs.directions
    return replace(pairs.take(starts), directions=directions).best_first()


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
    means = np.empty(len(neighbours.rows), np.float32)
    for rows in _chunks(len(means)):
        found = neighbours.rows[rows] >= 0
        totals = np.where(found, neighbours.scores[rows], 0).sum(axis=1)
        means[rows] = totals / np.maximum(found.sum(axis=1), 1)
    return means


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK_ROWS, n)) for start in range(0, n, _CHUNK_ROWS))


def candidate_margins(both: BothWays, kind: Margin) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the margins of all candidates, ``(n, k)`` for x to y and ``(m, k)`` for y to x.

    A slot without a neighbour has margin -inf.
    """
    forward, backward = _both_sides(both)
    return forward.margins(slice(None), kind), backward.margins(slice(None), kind)


@dataclass(frozen=True, eq=False)
class _Side:
    """One side's lists with the neighbourhood means of its own rows and of the other side's."""

    lists: Neighbours
    own_mean: NDArray[np.float32]
    other_mean: NDArray[np.float32]

    def margins(self, rows: slice, kind: Margin) -> NDArray[np.float32]:
        """Return the margins of the candidates of these rows, -inf for a slot without one."""
        others = self.lists.rows[rows]
        found = others >= 0
        cosines = np.where(found, self.lists.scores[rows], 0)
        other_mean = self.other_mean[np.where(found, others, 0)]
        scores = margin_scores(cosines, self.own_mean[rows, None], other_mean, kind)
        return np.where(found, scores, np.float32(-np.inf))


def _both_sides(both: BothWays) -> tuple[_Side, _Side]:
    mean_x, mean_y = neighbourhood_means(both.x_to_y), neighbourhood_means(both.y_to_x)
    return _Side(both.x_to_y, mean_x, mean_y), _Side(both.y_to_x, mean_y, mean_x)


def best_candidates(both: BothWays, kind: Margin) -> tuple[CandidatePairs, CandidatePairs]:
    """Return the best pair of every x (forward) and of every y (backward), both as (x row, y row).

    Best by margin among the k candidates, which need not be the one with the highest cosine; among
    equal margins the higher cosine, then the lower row. A text without any candidate has no pair.
    """
    forward, backward = _both_sides(both)
    return _pairs(forward, kind, FORWARD, _best), _pairs(backward, kind, BACKWARD, _best)


def listed_candidates(
    both: BothWays, kind: Margin, *, at_least: float = -np.inf
) -> tuple[CandidatePairs, CandidatePairs]:
    """Return all k candidates of every x (forward) and of every y (backward), both as (x row, y row).

    Those scoring less than ``at_least`` are left out, which saves memory.
    """

    def chosen(margins: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.isfinite(margins) & (margins >= at_least)

    forward, backward = _both_sides(both)
    return _pairs(forward, kind, FORWARD, chosen), _pairs(backward, kind, BACKWARD, chosen)


def all_candidates(both: BothWays, kind: Margin) -> CandidatePairs:
    """Return every pair that is in a list of either side once, best first, with who lists it."""
    return merged(*listed_candidates(both, kind))


def _best(margins: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the mask ``(rows, k)`` of the best candidate of each row that has one."""
    chosen = np.zeros(margins.shape, bool)
    if margins.shape[1]:
        best = margins.argmax(axis=1)
        chosen[np.arange(len(margins)), best] = True
    return chosen & np.isfinite(margins)


def _pairs(
    side: _Side,
    kind: Margin,
    direction: int,
    choose: Callable[[NDArray[np.float32]], NDArray[np.bool_]],
) -> CandidatePairs:
    """Return the chosen candidates of every row as pairs (x row, y row), in order of the side's rows."""
    empty = np.empty(0, np.int64)
    parts: list[_Columns] = [(np.empty(0, np.float32), empty, empty, np.empty(0, np.float32))]
    for rows in _chunks(len(side.lists.rows)):
        margins = side.margins(rows, kind)
        line, column = np.nonzero(choose(margins))
        own, other = line + rows.start, side.lists.rows[rows][line, column].astype(np.int64)
        source, target = (own, other) if direction == FORWARD else (other, own)
        parts.append((margins[line, column], source, target, side.lists.scores[rows][line, column]))
    scores, sources, targets, cosines = (np.concatenate(column) for column in zip(*parts, strict=True))
    return CandidatePairs(scores, sources, targets, cosines, np.full(len(scores), direction, np.int8))
