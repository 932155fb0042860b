"""One searchable set of vectors: rows 0..n-1, no other ids."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds import Flat, Kind, Rows
from indexing.kinds.stored import Found
from indexing.kinds.stored import scan as scan_stored
from indexing.neighbours import Neighbours
from indexing.vectors import check_vectors


class VectorIndex:
    """Vectors numbered by their rows, and a FAISS index of them. Safe to search from many threads.

    Made by `VectorIndex.build`, `build_calibrated` or `open_index`. ``kind`` holds the parameters;
    ``faiss_index`` is FAISS's own object. ``order`` ``(n,)`` is the row of each of FAISS's numbers where
    the two differ, else None; callers see rows only.
    """

    def __init__(self, kind: Kind, faiss_index: Any, order: NDArray[np.integer[Any]] | None = None) -> None:
        """Take ``faiss_index`` as ``kind`` built it.

        Raises:
            IndexingError: ``order`` is no permutation of the numbers of the vectors.
        """
        self.kind = kind
        self.faiss_index = faiss_index
        self.dimension = int(faiss_index.d)
        self.order = None if order is None else _permutation(order, self.count)
        self._numbers: NDArray[np.int32] | None = None

    @classmethod
    def build(cls, vectors: NDArray[Any], kind: Kind | None = None) -> VectorIndex:
        """Index ``vectors`` ``(n, dim)``, unit rows; an exact `Flat` index unless ``kind`` is given.

        Raises:
            VectorError: ``vectors`` break the vector convention.
        """
        kind = kind or Flat()
        return cls(kind, kind.build(check_vectors(vectors)))

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self.faiss_index.ntotal)

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        *,
        rows: NDArray[np.int64] | NDArray[np.bool_] | Rows | None = None,
        trusted: bool = False,
    ) -> Neighbours:
        """Return the ``k`` best rows for each of ``queries`` ``(q, dim)``, as `Neighbours` ``(q, k)``.

        ``rows`` allows only some rows: row numbers ``(r,)``, a mask ``(count,)`` true where allowed, or what
        `select` made of either. ``trusted`` says that ``queries`` have passed `check_vectors` before, with
        this dimension.

        Raises:
            VectorError: ``queries`` break the vector convention or have another dimension.
            IndexingError: ``k`` is not positive, or ``rows`` is no mask and no array of known rows.
        """
        if not trusted:
            queries = check_vectors(queries, dimension=self.dimension, name="queries")
        if k < 1:
            raise IndexingError(f"k is {k}; expected at least 1")
        allowed = rows if rows is None or isinstance(rows, Rows) else self.select(rows)
        return self._neighbours(*self._found(queries, k, allowed))

    def candidates(
        self, queries: NDArray[np.float32], k: int, *, rows: Rows | None = None, scan: bool = False
    ) -> NDArray[np.int64]:
        """Return the rows ``(q, k)`` that `search` finds, in any order, for a caller who scores them anew.

        ``queries`` must have passed `check_vectors`; a slot without a neighbour has row -1. ``scan`` reads
        everything that an HNSW index keeps of the rows, instead of following its graph.
        """
        if scan:
            found = scan_stored(faiss.downcast_index(self.faiss_index.storage), queries, k, rows)[1]
        else:
            found = self._found(queries, k, rows)[1]
        if self.order is None or not self.count:
            return found
        known: NDArray[np.int64] = self.order.take(found, mode="clip").astype(np.int64)
        if found.min(initial=0) < 0:
            known[found < 0] = -1
        return known

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Return ``rows``, numbers ``(r,)`` or a mask ``(count,)``, prepared for any number of searches.

        Raises:
            IndexingError: ``rows`` is no mask and no array of known rows.
        """
        if rows.dtype != bool:
            known = self._known(rows)
            return Rows(
                np.unique(known if self.order is None else self._number_of_row[known].astype(np.int64))
            )
        if rows.shape != (self.count,):
            raise IndexingError(f"rows is a mask of shape {rows.shape}; expected ({self.count},)")
        mask = rows if self.order is None else rows[self.order]
        return Rows(np.flatnonzero(mask).astype(np.int64, copy=False))

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors ``(r, dim)`` of the row numbers ``rows`` ``(r,)``, as the index keeps them.

        Raises:
            IndexingError: ``rows`` is no array of known rows, or this kind keeps no vectors.
        """
        if not self.kind.keeps_vectors:
            raise IndexingError(
                f"{self.kind.name} keeps codes only, from which no vector can be reconstructed"
            )
        known = self._known(rows)
        numbers = known if self.order is None else self._number_of_row[known].astype(np.int64)
        vectors: NDArray[np.float32] = self.faiss_index.reconstruct_batch(numbers)
        return vectors

    def _found(self, queries: NDArray[np.float32], k: int, numbers: Rows | None) -> Found:
        """What FAISS finds, in its own numbers, only of ``numbers`` (ascending) if given."""
        return self.kind.search(self.faiss_index, queries, k, numbers)

    def _neighbours(self, scores: NDArray[np.float32], found: NDArray[np.int64]) -> Neighbours:
        """Turn what FAISS found into rows, ordered by score, then row. Most answers need no sorting."""
        missing = found < 0 if found.min(initial=0) < 0 else None
        if self.order is not None and self.count:
            found = self.order.take(found, mode="clip").astype(np.int64)
        if missing is not None:
            scores[missing], found[missing] = -np.inf, -1
        if not (scores[:, 1:] < scores[:, :-1]).all():
            order = np.lexsort((found, -scores), axis=-1)
            scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
        return Neighbours(scores, found)

    @property
    def _number_of_row(self) -> NDArray[np.int32]:
        """The inverse of ``order``, made when first needed; two threads that make it make the same."""
        if self._numbers is None:
            assert self.order is not None
            numbers = np.empty(self.count, np.int32)
            numbers[self.order] = np.arange(self.count, dtype=np.int32)
            self._numbers = numbers
        return self._numbers

    def _known(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise IndexingError(f"rows have dtype {rows.dtype}, shape {rows.shape}; expected integers (r,)")
        unknown = np.flatnonzero((rows < 0) | (rows >= self.count))
        if len(unknown):
            raise IndexingError(f"rows[{unknown[0]}] is {rows[unknown[0]]}; the index has {self.count} rows")
        return np.ascontiguousarray(rows, dtype=np.int64)


def _permutation(order: NDArray[np.integer[Any]], count: int) -> NDArray[np.int32]:
    if order.shape != (count,) or not np.issubdtype(order.dtype, np.integer):
        raise IndexingError(
            f"order has dtype {order.dtype}, shape {order.shape}; expected integers ({count},)"
        )
    outside = np.flatnonzero((order < 0) | (order >= count))
    if len(outside):
        raise IndexingError(f"order[{outside[0]}] is {order[outside[0]]}; there are {count} rows")
    repeated = np.flatnonzero(np.bincount(order, minlength=count) > 1)
    if len(repeated):
        raise IndexingError(f"order holds row {repeated[0]} more than once")
    return np.asarray(order, np.int32)
