"""True scores of candidates: inner products whose bits depend on the two vectors and on nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.neighbours import Neighbours

_GATHERED_BYTES = 1 << 20  # of vectors copied together at once: what a core's cache holds


def rescored(
    own: NDArray[np.float32], others: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> Neighbours:
    """Return the ``min(k, c)`` best candidates for each of ``own``: their ``rows`` ``(n, c)`` of ``others``.

    Best first by the float32 inner product; equal scores in order of rows. Row -1 is no candidate.
    """
    kept = min(k, rows.shape[1])
    best = Neighbours(np.empty((len(rows), kept), np.float32), np.empty((len(rows), kept), np.int64))
    step = max(1, _GATHERED_BYTES // (4 * max(1, rows.shape[1]) * own.shape[1]))
    for start in range(0, len(rows), step):
        # In order of rows, so that a stable sort by score leaves equal ones in it.
        part = np.sort(rows[start : start + step], axis=1)
        scores = np.einsum("ij,ikj->ik", own[start : start + step], others[part])
        scores[part < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
        best.scores[start : start + step] = np.take_along_axis(scores, order, 1)
        best.rows[start : start + step] = np.take_along_axis(part, order, 1)
    return best
