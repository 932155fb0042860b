"""Inverted lists of RaBitQ codes, 1 to 9 bits per value (Gao et al. 2024, arXiv:2405.12497, 2409.09913)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds.inverted import Effort, built, efforts, lists_for, search_lists
from indexing.kinds.ivf_pq import REFINE
from indexing.kinds.stored import BYTES_PER_VALUE, Found, Rows, Storage, check_integers, check_storage, holds

_MOST_BITS = 9


@dataclass(frozen=True)
class RaBitQ:
    """Approximate search over codes that need no other copy of the vectors: the least memory.

    ``bits`` per value (1-9) decide about memory and recall: ``dim·bits/8 + 28`` bytes per vector. A
    search reads ``nprobe`` of ``nlist`` lists; fewer than 39 vectors per list make fewer lists. With
    ``refine`` other than "none" the ``k_factor·k`` best are refined with vectors kept beside the codes;
    without, scores are estimates and nothing can be reconstructed.
    """

    bits: int = 4
    nlist: int = 1024
    nprobe: int = 128
    k_factor: int = 4
    refine: Literal["none"] | Storage = "none"
    name: ClassVar[str] = "rabitq"

    def __post_init__(self) -> None:
        values = {name: (getattr(self, name), 1) for name in ("bits", "nlist", "nprobe", "k_factor")}
        check_integers(self.name, values)
        check_storage(self.name, "refine", self.refine, ("none", "float32", "sq8"))
        if self.bits > _MOST_BITS:
            raise IndexingError(f"rabitq parameter bits is {self.bits}; expected at most {_MOST_BITS}")

    @property
    def keeps_vectors(self) -> bool:
        """Whether vectors can be reconstructed."""
        return self.refine != "none"

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        count, dimension = vectors.shape
        # A random rotation first: the codes assume that no dimension stands out.
        factory = f"RR{dimension},IVF{lists_for(self.nlist, count)},RaBitQ{self.bits}"
        if self.keeps_vectors:
            return built(f"{factory},{REFINE[self.refine]}", vectors)
        return built(factory, vectors)

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        if self.keeps_vectors:
            if not isinstance(index, faiss.IndexRefine):
                return False
            if not holds(faiss.downcast_index(index.refine_index), self.refine):
                return False
            index = faiss.downcast_index(index.base_index)
        if not isinstance(index, faiss.IndexPreTransform):
            return False
        lists = faiss.downcast_index(index.index)
        return isinstance(lists, faiss.IndexIVFRaBitQ) and lists.rabitq.nb_bits == self.bits

    def search(self, index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None) -> Found:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""
        k_factor = self.k_factor if self.keeps_vectors else 0
        effort = Effort(lists_for(self.nlist, index.ntotal), self.nprobe, k_factor, rotated=True)
        return search_lists(index, queries, k, rows, effort)

    def search_ladder(self, count: int, k: int) -> list[RaBitQ]:
        """Return this kind with other search parameters, the cost of a search for ``k`` growing."""
        pairs = efforts(lists_for(self.nlist, count), count, k)
        if not self.keeps_vectors:
            pairs = [(nprobe, self.k_factor) for nprobe, k_factor in pairs if k_factor == 1]
        return [replace(self, nprobe=nprobe, k_factor=k_factor) for nprobe, k_factor in pairs]

    def bytes_per_vector(self, dimension: int, count: int) -> float:
        """Return the bytes in memory per vector of ``dimension`` when there are ``count``."""
        signs = (dimension + 7) // 8
        code = signs + 8 if self.bits == 1 else signs + 12 + (dimension * (self.bits - 1) + 7) // 8 + 8
        kept = BYTES_PER_VALUE[self.refine] * dimension if self.refine != "none" else 0
        matrices = 4 * dimension * (dimension + lists_for(self.nlist, count)) / max(1, count)
        return code + 8 + kept + matrices
