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
    real = int((true_rows >= 0).sum())
    return int(hits_per_query(found_rows, true_rows).sum()) / real if real else 1.0


def hits_per_query(found_rows: NDArray[np.int64], true_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of ``true_rows`` ``(q, k)`` stand in the same row of ``found_rows``: ``(q,)``.

    Row -1 is never found.

    Raises:
        IndexingError: the two are not for the same number of queries.
    """
    if len(found_rows) != len(true_rows):
        raise IndexingError(f"found rows are for {len(found_rows)} queries, true rows for {len(true_rows)}")
    hits = [
        int(np.isin(true[true >= 0], found).sum()) for found, true in zip(found_rows, true_rows, strict=True)
    ]
    return np.array(hits, np.int64)


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
