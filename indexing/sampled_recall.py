"""How good lists of neighbours are, measured on rows drawn by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexing.block_lists import Lists, merge_lists
from indexing.exact import BothWays, nearest
from indexing.neighbours import Neighbours
from indexing.recall import recall_at_k
from indexing.vector_shards import VectorShards

_TOLERANCE = 1e-6  # scores this near may stand in any order


@dataclass(frozen=True)
class SampledRecall:
    """The share of true neighbours found, and of the best ones found first, on ``rows`` of each side."""

    rows: tuple[int, int]
    x_to_y: float
    y_to_x: float
    x_to_y_first: float
    y_to_x_first: float


def sampled_recall(
    x: VectorShards, y: VectorShards, both: BothWays, *, rows: int = 1_000, seed: int = 0
) -> SampledRecall:
    """Compare ``both`` with an exact search for ``rows`` rows of each side, drawn without regard to order.

    A row found first counts as right also where it only scores as high as the true first.
    """
    forward = _side(x, y, both.x_to_y, rows, seed)
    backward = _side(y, x, both.y_to_x, rows, seed + 1)
    return SampledRecall((forward[0], backward[0]), forward[1], backward[1], forward[2], backward[2])


def _side(
    own: VectorShards, other: VectorShards, found: Neighbours, rows: int, seed: int
) -> tuple[int, float, float]:
    sample = np.sort(np.random.default_rng(seed).permutation(own.rows)[:rows])
    k = found.rows.shape[1]
    if not len(sample) or not k:
        return len(sample), 1.0, 1.0
    queries = np.concatenate([own.read(row, row + 1) for row in sample.tolist()])
    true = _exact(queries, other, k)
    first = found.scores[sample, 0] >= true.scores[:, 0] - _TOLERANCE
    return len(sample), recall_at_k(found.rows[sample], true.rows), float(first.mean())


def _exact(queries: NDArray[np.float32], other: VectorShards, k: int) -> Neighbours:
    nothing_missed = np.full(len(queries), -np.inf, np.float32)
    parts = (
        (start, Lists(nearest(queries, other.read(start, stop), k), nothing_missed))
        for start, stop in other.bounds()
    )
    return merge_lists(parts, k).neighbours
