"""Recall: how many of the true neighbours a search found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.exact import nearest
from indexing.index import VectorIndex


def recall_at_k(found_rows: NDArray[np.int64], true_rows: NDArray[np.int64]) -> float:
    """Return the share of ``true_rows`` ``(q, k)`` that stand anywhere in the same row of ``found_rows``.

    Row -1 (no neighbour) counts on neither side; without any true row the recall is 1.

    Raises:
        IndexingError: the two are not for the same number of queries.
    """
    if len(found_rows) != len(true_rows):
        raise IndexingError(f"found rows are for {len(found_rows)} queries, true rows for {len(true_rows)}")
    real = true_rows >= 0
    hits = sum(
        int(np.isin(true[valid], found).sum())
        for found, true, valid in zip(found_rows, true_rows, real, strict=True)
    )
    return hits / int(real.sum()) if real.any() else 1.0


def measure_recall(index: VectorIndex, queries: NDArray[Any], vectors: NDArray[Any], k: int) -> float:
    """Return recall@k of ``index`` against an exact search of the ``vectors`` ``(n, dim)`` it was built on.

    ``queries`` ``(q, dim)`` should be held-out queries, not the indexed vectors themselves.

    Raises:
        VectorError: as `VectorIndex.search`.
        IndexingError: ``vectors`` are not as many as the index holds.
    """
    if len(vectors) != index.count:
        raise IndexingError(f"the index holds {index.count} vectors; got {len(vectors)} to compare with")
    return recall_at_k(index.search(queries, k).rows, nearest(queries, vectors, k).rows)
