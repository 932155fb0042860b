"""Pure planning: token lengths in, batches of row numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[NDArray[np.int64]]:
    """Return batches of row numbers, longest texts first, each within a padded-token budget.

    The padded size of a batch is ``rows * longest``. Rows of similar length share a batch, so
    little is padded; a single text longer than the budget gets a batch of its own. Longest first
    makes the first batch the largest: memory trouble shows at once, and the time left is
    over-estimated rather than under-estimated.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[NDArray[np.int64]] = []
    begin = 0
    while begin < len(order):
        longest = max(int(lengths[order[begin]]), 1)
        rows = max(batch_tokens // longest, 1)
        batches.append(order[begin : begin + rows])
        begin += rows
    return batches
