"""Many short lists in one long array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def ragged(begins: Rows, lengths: Rows) -> tuple[Rows, Rows]:
    """Return (all lengths,) the places of the members of lists (n,), list after list, and whose each is."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return begins[owner] + within, owner
