"""A fast scan of all 4-bit product codes, the best refined with kept vectors: no lists to miss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from indexing.kinds.inverted import Effort, built, search_lists
from indexing.kinds.ivf_pq import REFINE, code_count, refined_bytes, refined_lists
from indexing.kinds.stored import BYTES_PER_VALUE, Found, Rows, Storage, check_integers, check_storage

_K_FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


@dataclass(frozen=True)
class PqScan:
    """Nearly exact search that reads a short code of every vector; quick to build, any filter.

    ``dims`` is how many dimensions, at most, share a code of 4 bits; the ``k_factor·k`` best are refined
    with the vectors kept as ``refine`` says. About ``dim/4 + dim + 8`` bytes per vector.
    """

    k_factor: int = 4
    dims: int = 2
    refine: Storage = "sq8"
    name: ClassVar[str] = "pq_scan"
    keeps_vectors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integers(self.name, {"k_factor": (self.k_factor, 1), "dims": (self.dims, 1)})
        check_storage(self.name, "refine", self.refine)

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        codes = code_count(vectors.shape[1], self.dims)
        # One list, as fast scan outside of lists takes no selector.
        return built(f"IVF1,PQ{codes}x4fs,{REFINE[self.refine]}", vectors)

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        return refined_lists(index, self.refine) == 1

    def search(self, index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None) -> Found:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""
        return search_lists(index, queries, k, rows, Effort(1, 1, self.k_factor))

    def search_ladder(self, count: int, k: int) -> list[PqScan]:  # noqa: ARG002
        """Return this kind with other search parameters, the cost of a search for ``k`` growing."""
        return [replace(self, k_factor=k_factor) for k_factor in _K_FACTORS]

    def bytes_per_vector(self, dimension: int, count: int) -> float:
        """Return the bytes in memory per vector of ``dimension`` when there are ``count``."""
        return refined_bytes(dimension, count, 1, self.dims) + BYTES_PER_VALUE[self.refine] * dimension
