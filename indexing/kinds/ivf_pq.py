"""Inverted lists of 4-bit product codes read by fast scan, the best refined with kept vectors.

Jégou et al. 2011, "Product quantization for nearest neighbor search"; André et al. 2017,
arXiv:1704.07355 (fast scan).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.kinds.inverted import Effort, built, efforts, lists_for, search_lists
from indexing.kinds.stored import BYTES_PER_VALUE, Found, Rows, Storage, check_integers, check_storage, holds

REFINE = {"float32": "RFlat", "sq8": "Refine(SQ8)"}


@dataclass(frozen=True)
class IvfPq:
    """Approximate search in few of ``nlist`` lists; about ``dim/8 + dim + 8`` bytes per vector.

    ``dims`` is how many dimensions, at most, share a code of 4 bits. A search reads the codes in
    ``nprobe`` lists and refines the ``k_factor·k`` best with the vectors kept as ``refine`` says. With
    fewer than 39 vectors per list there are fewer lists.
    """

    nlist: int = 1024
    nprobe: int = 64
    k_factor: int = 8
    dims: int = 4
    refine: Storage = "sq8"
    name: ClassVar[str] = "ivf_pq"
    keeps_vectors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        values = {name: (getattr(self, name), 1) for name in ("nlist", "nprobe", "k_factor", "dims")}
        check_integers(self.name, values)
        check_storage(self.name, "refine", self.refine)

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        count, dimension = vectors.shape
        codes = code_count(dimension, self.dims)
        return built(f"IVF{lists_for(self.nlist, count)},PQ{codes}x4fs,{REFINE[self.refine]}", vectors)

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        return refined_lists(index, self.refine) in range(1, self.nlist + 1)

    def search(self, index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None) -> Found:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""
        effort = Effort(lists_for(self.nlist, index.ntotal), self.nprobe, self.k_factor)
        return search_lists(index, queries, k, rows, effort)

    def search_ladder(self, count: int, k: int) -> list[IvfPq]:
        """Return this kind with other search parameters, the cost of a search for ``k`` growing."""
        pairs = efforts(lists_for(self.nlist, count), count, k)
        return [replace(self, nprobe=nprobe, k_factor=k_factor) for nprobe, k_factor in pairs]

    def bytes_per_vector(self, dimension: int, count: int) -> float:
        """Return the bytes in memory per vector of ``dimension`` when there are ``count``."""
        lists = lists_for(self.nlist, count)
        return refined_bytes(dimension, count, lists, self.dims) + BYTES_PER_VALUE[self.refine] * dimension


def code_count(dimension: int, dims: int) -> int:
    """Return the least number of equal parts of ``dimension`` that have at most ``dims`` each."""
    return next(
        parts for parts in range(1, dimension + 1) if dimension % parts == 0 and dimension <= parts * dims
    )


def refined_lists(index: Any, refine: str) -> int:
    """Return the number of lists if ``index`` is refined fast scan of product codes, else 0."""
    if not isinstance(index, faiss.IndexRefine) or not holds(
        faiss.downcast_index(index.refine_index), refine
    ):
        return 0
    base = faiss.downcast_index(index.base_index)
    return int(base.nlist) if isinstance(base, faiss.IndexIVFPQFastScan) else 0


def refined_bytes(dimension: int, count: int, lists: int, dims: int) -> float:
    """Return the bytes per vector of the codes: with ids, centroids, and lists filled up to 32 codes."""
    codes = (code_count(dimension, dims) + 1) // 2
    return codes + 8 + lists * (4 * dimension + 16 * codes) / max(1, count)
