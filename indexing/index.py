"""One searchable set of vectors: rows 0..n-1, no other ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds import Flat, Kind
from indexing.neighbours import Neighbours
from indexing.vectors import check_vectors


class VectorIndex:
    """Vectors numbered by their rows, and a FAISS index of them. Safe to search from many threads.

    Made by `VectorIndex.build` or `open_index`. ``kind`` holds the parameters; ``faiss_index`` is
    FAISS's own object.
    """

    def __init__(self, kind: Kind, faiss_index: Any) -> None:
        self.kind = kind
        self.faiss_index = faiss_index

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

    @property
    def dimension(self) -> int:
        """The width of a vector."""
        return int(self.faiss_index.d)

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        *,
        rows: NDArray[np.int64] | NDArray[np.bool_] | None = None,
    ) -> Neighbours:
        """Return the ``k`` best rows for each of ``queries`` ``(q, dim)``, as `Neighbours` ``(q, k)``.

        ``rows`` allows only some rows: row numbers ``(r,)``, or a mask ``(count,)`` true where allowed.

        Raises:
            VectorError: ``queries`` break the vector convention or have another dimension.
            IndexingError: ``k`` is not positive, or ``rows`` is no mask and no array of known rows.
        """
        queries = check_vectors(queries, dimension=self.dimension, name="queries")
        if k < 1:
            raise IndexingError(f"k is {k}; expected at least 1")
        allowed = None if rows is None else self._allowed(rows)
        scores, found = self.kind.search(self.faiss_index, queries, k, allowed)
        scores[found < 0] = -np.inf
        order = np.lexsort((found, -scores), axis=-1)
        return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1))

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors ``(r, dim)`` of the row numbers ``rows`` ``(r,)``.

        Raises:
            IndexingError: ``rows`` is no array of known rows.
        """
        vectors: NDArray[np.float32] = self.faiss_index.reconstruct_batch(self._known(rows))
        return vectors

    def _allowed(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """Distinct allowed rows, ascending."""
        if rows.dtype != bool:
            return np.unique(self._known(rows))
        if rows.shape != (self.count,):
            raise IndexingError(f"rows is a mask of shape {rows.shape}; expected ({self.count},)")
        return np.flatnonzero(rows).astype(np.int64, copy=False)

    def _known(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise IndexingError(f"rows have dtype {rows.dtype}, shape {rows.shape}; expected integers (r,)")
        unknown = np.flatnonzero((rows < 0) | (rows >= self.count))
        if len(unknown):
            raise IndexingError(f"rows[{unknown[0]}] is {rows[unknown[0]]}; the index has {self.count} rows")
        return np.ascontiguousarray(rows, dtype=np.int64)
