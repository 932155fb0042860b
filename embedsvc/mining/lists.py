"""Lists of neighbours from which some rows are taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing import BothWays, Neighbours


def without_rows(both: BothWays, source_rows: NDArray[np.int64], target_rows: NDArray[np.int64]) -> BothWays:
    """Return the lists without these rows, as owners and as neighbours; a slot left is empty.

    The same object where there is nothing to take out; else copies in memory.
    """
    if not len(source_rows) and not len(target_rows):
        return both
    return BothWays(
        _without(both.x_to_y, source_rows, target_rows),
        _without(both.y_to_x, target_rows, source_rows),
    )


def _without(lists: Neighbours, own: NDArray[np.int64], others: NDArray[np.int64]) -> Neighbours:
    rows, scores = np.array(lists.rows), np.array(lists.scores)
    gone = np.isin(rows, others)
    gone[own] = True
    rows[gone], scores[gone] = -1, -np.inf
    return Neighbours(scores, rows)
