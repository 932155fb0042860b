"""Pure planning: token lengths in, batches of row numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BATCH_COST_TOKENS = 16  # what starting one more batch costs, as tokens of padding: measured 7 to 16


def plan_batches(lengths: Sequence[int], batch_tokens: int, *, pads: bool = True) -> list[NDArray[np.int64]]:
    """Return batches of row numbers, longest texts first, each within a budget of padded tokens.

    The padded size of a batch is ``rows * longest``; a single text longer than the budget gets a
    batch of its own. Where the runtime ``pads``, rows are cut into batches such that padding and
    the cost of batches together are least. Longest first makes the first batch the largest: memory
    trouble shows at once, and the time left is over-estimated rather than under-estimated.
    """
    given = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-given, kind="stable")
    descending = np.maximum(given[order], 1)
    batches: list[NDArray[np.int64]] = []
    begins = _sections(descending, batch_tokens) if pads else [0]
    for begin, end in zip(begins, [*begins[1:], len(order)], strict=True):
        place = begin
        while place < end:
            rows = max(batch_tokens // int(descending[place]), 1)
            batches.append(order[place : min(place + rows, end)])
            place += rows
    return batches


def _sections(descending: NDArray[np.int64], batch_tokens: int) -> list[int]:
    """Return where to cut sorted lengths: the cheapest way over all cuts between different lengths.

    A section of rows from length v down costs ``rows * v`` tokens and a batch cost per batch; the best cuts
    up to a length follow from the best ones up to each longer length.
    """
    if len(descending) == 0:
        return [0]
    starts = np.flatnonzero(np.diff(descending, prepend=descending[0] + 1))
    longest = descending[starts]
    capacity = np.maximum(batch_tokens // longest, 1)
    ends = np.append(starts[1:], len(descending))
    best = np.zeros(len(starts) + 1)
    cut = np.zeros(len(starts), dtype=np.int64)
    for last, end in enumerate(ends):
        rows = end - starts[: last + 1]
        batches = -(-rows // capacity[: last + 1])
        costs = best[: last + 1] + rows * longest[: last + 1] + _BATCH_COST_TOKENS * batches
        cut[last] = costs.argmin()
        best[last + 1] = costs[cut[last]]
    begins: list[int] = []
    last = len(starts) - 1
    while last >= 0:
        begins.append(int(starts[cut[last]]))
        last = int(cut[last]) - 1
    return begins[::-1]
