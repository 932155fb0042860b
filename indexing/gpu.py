"""Search on graphics cards, where there are some and ``faiss-gpu`` is installed (extra ``[gpu]``).

What is worth a GPU: exact search, here, and the k-means that makes inverted lists, which `kinds.inverted`
runs there by itself. Graphs, fast scan and RaBitQ codes exist for CPUs only.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.index import VectorIndex
from indexing.kinds import Flat
from indexing.kinds.stored import Found, Rows

_MOST_FOUND = 2048
"""FAISS's limit of ``k`` on GPUs."""


class GpuIndex(VectorIndex):
    """An exact index with a copy in the memory of every GPU, among which they share out the queries.

    The index on the CPU stays: it is what is saved, and it answers filtered searches, as FAISS ignores
    selectors on GPUs without saying so.
    """

    def __init__(self, index: VectorIndex) -> None:
        """Copy ``index``, which must be `Flat`; there must be a GPU."""
        super().__init__(index.kind, index.faiss_index, index.order)
        self.gpu_index: Any = faiss.index_cpu_to_all_gpus(index.faiss_index)

    def _found(self, queries: NDArray[np.float32], k: int, numbers: Rows | None) -> Found:
        if numbers is not None or k > _MOST_FOUND:
            return super()._found(queries, k, numbers)
        result: Found = self.gpu_index.search(queries, k)
        return result


def on_gpu(index: VectorIndex) -> VectorIndex:
    """Return ``index`` with a copy on all GPUs; as it is without a GPU, or if its kind is for CPUs only."""
    return GpuIndex(index) if faiss.get_num_gpus() and isinstance(index.kind, Flat) else index
