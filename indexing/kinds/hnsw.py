"""HNSW: a navigable graph over float32 vectors (Malkov & Yashunin 2016, arXiv:1603.09320)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds.flat import scan


@dataclass(frozen=True)
class Hnsw:
    """Approximate search in logarithmic time; ``4·dim + 8·m`` bytes per vector.

    ``m`` is the number of neighbours per node (twice that on the lowest level), ``ef_construction``
    and ``ef_search`` the candidates kept while building and while searching: more is slower and finds
    more. The graph depends on the order in which threads insert: two builds may differ slightly.
    """

    m: int = 32
    ef_construction: int = 200
    ef_search: int = 128
    name: ClassVar[str] = "hnsw"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("m", self.m, 2),
            ("ef_construction", self.ef_construction, 1),
            ("ef_search", self.ef_search, 1),
        ):
            if type(value) is not int or value < least:
                raise IndexingError(f"hnsw parameter {name} is {value!r}; expected an integer >= {least}")

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.add(vectors)
        return index

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        return isinstance(index, faiss.IndexHNSWFlat)

    def search(
        self, index: Any, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given.

        A filter that leaves few vectors is answered by an exact scan of those: a graph loses most of
        the recall there, and the scan is faster. A query for which the graph finds less than it
        should is repeated exactly.
        """
        vectors = faiss.downcast_index(index.storage)
        allowed = index.ntotal if rows is None else len(rows)
        if rows is not None and allowed <= self._largest_scan(index.ntotal):
            return scan(vectors, queries, k, rows)
        scores, found = index.search(queries, k, params=self._parameters(index.ntotal, rows))
        short = np.flatnonzero((found[:, : min(k, allowed)] < 0).any(axis=1))
        if len(short):
            scores[short], found[short] = scan(vectors, queries[short], k, rows)
        return scores, found

    def _largest_scan(self, count: int) -> float:
        """Allowed vectors up to which scanning them is faster than the graph.

        With ef widened by ``count / allowed`` the graph reads about ``m · ef · count / allowed`` vectors;
        the scan reads ``allowed``. Measured: the two take equal time where these are equal.
        """
        return math.sqrt(self.m * self.ef_search * count)

    def _parameters(self, count: int, rows: NDArray[np.int64] | None) -> Any:
        """Search parameters; ef grows so that as many *allowed* candidates are kept as without a filter."""
        if rows is None:
            return faiss.SearchParametersHNSW(efSearch=self.ef_search)
        allowed = np.zeros(count, bool)
        allowed[rows] = True
        return faiss.SearchParametersHNSW(
            efSearch=math.ceil(self.ef_search * count / len(rows)),
            sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")),
        )
