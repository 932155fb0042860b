"""Which neighbours of an anchor are its negatives: no translation, not too near, in the ranks wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.hard_negatives.options import NegativeOptions


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """What is near the anchors of P pairs, best first.

    scores float32 (P, k): cosines. there (P, k): whether the slot holds a neighbour. known (P, k): whether
    it is a translation of the anchor, or the anchor itself. positive (P,): the score of the pair.
    """

    scores: NDArray[np.float32]
    there: NDArray[np.bool_]
    known: NDArray[np.bool_]
    positive: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Selection:
    """columns (P, count): the slots chosen, best first, -1 behind the last. too_near (P,): how many were."""

    columns: NDArray[np.int64]
    too_near: NDArray[np.int64]


def ceilings(positive: NDArray[np.float32], options: NegativeOptions) -> NDArray[np.float32]:
    """Return (P,), the highest score that a negative may have.

    ``max_share`` of a positive's score is less than that score; where it is negative, so much below it.
    """
    by_share = positive - (1 - options.max_share) * np.abs(positive)
    found: NDArray[np.float32] = np.minimum(by_share, positive - options.margin).astype(np.float32)
    return found


def select(near: Neighbourhood, options: NegativeOptions) -> Selection:
    """Return the first ``count`` neighbours at or below their `ceilings`, past the first ``skip``."""
    candidates = near.there & ~near.known
    rank = np.cumsum(candidates, axis=1) - 1
    in_window = candidates & (rank >= options.skip)
    low_enough = near.scores <= ceilings(near.positive, options)[:, None]
    chosen = in_window & low_enough
    chosen &= np.cumsum(chosen, axis=1) <= options.count
    columns = np.argsort(~chosen, axis=1, kind="stable")[:, : options.count].astype(np.int64)
    columns[~np.take_along_axis(chosen, columns, axis=1)] = -1
    return Selection(columns, (in_window & ~low_enough).sum(axis=1))
