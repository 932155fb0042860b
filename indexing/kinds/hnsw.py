"""HNSW: a navigable graph over the vectors (Malkov & Yashunin 2016, arXiv:1603.09320)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.kinds.stored import (
    BYTES_PER_VALUE,
    Found,
    Rows,
    Storage,
    check_integers,
    check_storage,
    holds,
    repeat_short,
    scan,
)

_LADDER = [round(16 * 2 ** (step / 2)) for step in range(15)]  # 16, 23, 32, ... 2048

_LEAST_FILTERED = 32
"""Allowed candidates to keep at least: a filter cuts paths that a small ef needs (measured: 0.94 with 16)."""


@dataclass(frozen=True)
class Hnsw:
    """Approximate search in logarithmic time; ``4·dim + 8·m`` bytes per vector, ``dim + 8·m`` with sq8.

    ``m`` is the number of neighbours per node (twice that on the lowest level), ``ef_construction``
    and ``ef_search`` the candidates kept while building and while searching: more is slower and finds
    more. The graph depends on the order in which threads insert: two builds may differ slightly.
    ``storage`` "sq8" keeps 8 bits per value: a third of the memory at the same speed or better, and
    scores that are off by about 0.001.
    """

    m: int = 32
    ef_construction: int = 100
    ef_search: int = 128
    storage: Storage = "float32"
    name: ClassVar[str] = "hnsw"
    keeps_vectors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        least = {
            "m": (self.m, 2),
            "ef_construction": (self.ef_construction, 1),
            "ef_search": (self.ef_search, 1),
        }
        check_integers(self.name, least)
        check_storage(self.name, "storage", self.storage)

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""
        dimension, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        if self.storage == "float32":
            index = faiss.IndexHNSWFlat(dimension, self.m, metric)
        else:
            index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, self.m, metric)
            # The extremes of no vectors are those of any unit vector.
            index.train(vectors if len(vectors) else np.array([[-1], [1]], np.float32).repeat(dimension, 1))
        index.hnsw.efConstruction = self.ef_construction
        index.add(vectors)
        return index

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""
        return isinstance(index, faiss.IndexHNSW) and holds(faiss.downcast_index(index.storage), self.storage)

    def search(self, index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None) -> Found:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given.

        A filter that leaves few vectors is answered by an exact scan of those: a graph loses most of
        the recall there, and the scan is faster. A query for which the graph finds less than it
        should is repeated exactly.
        """
        if rows is None:
            result: Found = index.search(queries, k, params=_parameters(self.ef_search))
        elif len(rows) <= self._largest_scan(index.ntotal):
            return scan(faiss.downcast_index(index.storage), queries, k, rows)
        else:
            result = index.search(queries, k, params=self._filtered(index.ntotal, rows, k))
        if result[1].min(initial=0) < 0:
            storage, allowed = (
                faiss.downcast_index(index.storage),
                index.ntotal if rows is None else len(rows),
            )
            repeat_short(result, queries, allowed, lambda short: scan(storage, short, k, rows))
        return result

    def search_ladder(self, count: int, k: int) -> list[Hnsw]:  # noqa: ARG002
        """Return this kind with other search parameters, the cost of a search for ``k`` growing."""
        steps = [ef for ef in _LADDER if ef >= min(k, _LADDER[-1])]
        return [replace(self, ef_search=ef) for ef in steps]

    def bytes_per_vector(self, dimension: int, count: int) -> float:  # noqa: ARG002
        """Return the bytes in memory per vector of ``dimension`` when there are ``count``."""
        return BYTES_PER_VALUE[self.storage] * dimension + 8.0 * self.m + 16

    def _largest_scan(self, count: int) -> float:
        """Allowed vectors up to which scanning them is faster than the graph.

        With ef widened by ``count / allowed`` the graph reads about ``m · ef · count / allowed`` vectors;
        the scan reads ``allowed``. Measured: the two take equal time where these are equal.
        """
        return math.sqrt(self.m * self.ef_search * count)

    def _filtered(self, count: int, rows: Rows, k: int) -> Any:
        """Search parameters; ef grows so that as many *allowed* candidates are kept as without a filter."""
        ef_search = math.ceil(max(self.ef_search, _LEAST_FILTERED, k) * count / len(rows))
        return faiss.SearchParametersHNSW(efSearch=ef_search, sel=rows.selector(count))


@functools.lru_cache
def _parameters(ef_search: int) -> Any:
    """Search parameters; FAISS only reads them, so that all threads share these."""
    return faiss.SearchParametersHNSW(efSearch=ef_search)
