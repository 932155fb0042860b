"""The one shape in which neighbours are returned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The best rows per query, best first; equal scores stand in row order.

    ``scores`` is float32 ``(queries, k)``, inner products; ``rows`` is int64 ``(queries, k)``, row
    numbers of the indexed vectors. A slot without a neighbour has row -1 and score -inf.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
