"""Flat: every search reads every vector. Exact, no training, no tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

# Since 1.14.2 FAISS multiplies with BLAS only from queries*dim >= 128 000 on, which leaves batches of
# 6 to some 300 queries 4-7 times slower than they could be. Earlier versions count queries (20).
faiss.cvar.distance_compute_blas_threshold = min(2048, faiss.cvar.distance_compute_blas_threshold)


@dataclass(frozen=True)
class Flat:
    """Exact search over float32 vectors; ``4·dim`` bytes per vector."""

    name: ClassVar[str] = "flat"

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        return isinstance(index, faiss.IndexFlat)

    def search(
        self, index: Any, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""
        return scan(index, queries, k, rows)


def scan(
    flat: Any, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search a FAISS flat index exactly; the cost grows with ``len(rows)``, not with the index."""
    if rows is None:
        scores, found = flat.search(queries, k)
    else:
        allowed = faiss.SearchParameters(sel=faiss.IDSelectorArray(rows))
        scores, found = flat.search(queries, k, params=allowed)
    return scores, found
