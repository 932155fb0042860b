"""The vectors an index keeps, whole or in 8 bits per value: how they are named, sized and scanned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError

# Since 1.14.2 FAISS multiplies with BLAS only from queries*dim >= 128 000 on, which leaves batches of
# 6 to some 300 queries 4-7 times slower than they could be. Earlier versions count queries (20).
faiss.cvar.distance_compute_blas_threshold = min(2048, faiss.cvar.distance_compute_blas_threshold)

Storage = Literal["float32", "sq8"]
"""How vectors are kept: as they are, or with 8 bits per value between the extremes of its dimension."""

BYTES_PER_VALUE = {"float32": 4, "sq8": 1}

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def check_storage(kind: str, name: str, value: object, allowed: tuple[str, ...] = get_args(Storage)) -> None:
    """Raise IndexingError if ``value``, the parameter ``name`` of ``kind``, is no way to keep vectors."""
    if value not in allowed:
        raise IndexingError(f"{kind} parameter {name} is {value!r}; expected one of {', '.join(allowed)}")


def check_integers(kind: str, values: Mapping[str, tuple[object, int]]) -> None:
    """Raise IndexingError if a parameter of ``kind``, given with its least value, is no such integer."""
    for name, (value, least) in values.items():
        if type(value) is not int or value < least:
            raise IndexingError(f"{kind} parameter {name} is {value!r}; expected an integer >= {least}")


def holds(index: Any, storage: str) -> bool:
    """Whether a FAISS index keeps its vectors as ``storage`` says, and nothing else."""
    if storage == "float32":
        return isinstance(index, faiss.IndexFlat)
    return isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype == faiss.ScalarQuantizer.QT_8bit


class Rows:
    """The rows that a search may return, ascending; selectors made of them are kept for the next search."""

    __slots__ = ("_selector", "numbers")

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        """Take distinct, ascending ``numbers`` ``(r,)`` of one index."""
        self.numbers = numbers
        self._selector: Any = None

    def __len__(self) -> int:
        return len(self.numbers)

    def selector(self, count: int) -> Any:
        """Return a FAISS selector of these rows out of all ``count``, asked in constant time."""
        if self._selector is None:
            allowed = np.zeros(count, bool)
            allowed[self.numbers] = True
            self._selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return self._selector


def scan(index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None) -> Found:
    """Compare ``queries`` ``(q, dim)`` with every kept vector of ``rows`` (ascending), or with all.

    ``index`` is what `holds` accepts. The cost grows with ``len(rows)``; one bit is read of the others.
    """
    if rows is None:
        scores, found = index.search(queries, k)
    elif isinstance(index, faiss.IndexFlat):
        scores, found = index.search(
            queries, k, params=faiss.SearchParameters(sel=faiss.IDSelectorArray(rows.numbers))
        )
    elif _cheaper_copied(len(rows), index.ntotal):
        scores, found = _copied(index, rows.numbers).search(queries, k)
        real = found >= 0
        found[real] = rows.numbers[found[real]]
    else:
        allowed = faiss.SearchParameters(sel=rows.selector(index.ntotal))
        scores, found = index.search(queries, k, params=allowed)
    return scores, found


def repeat_short(
    result: Found, queries: NDArray[np.float32], allowed: int, again: Callable[[NDArray[np.float32]], Found]
) -> None:
    """Ask ``again`` those queries that found fewer than the ``allowed`` neighbours; change ``result``."""
    scores, found = result
    short = np.flatnonzero((found[:, : min(found.shape[1], allowed)] < 0).any(axis=1))
    if len(short):
        scores[short], found[short] = again(queries[short])


def _cheaper_copied(few: int, count: int) -> bool:
    """Measured: copying a code costs as much as asking 32 rows whether they are allowed.

    Beyond the caches (1000 codes of 384 bytes) it costs as much as asking 400.
    """
    return few * (32 if few <= 1000 else 400) < count


def _copied(index: Any, rows: NDArray[np.int64]) -> Any:
    """Return a small index of some rows of a scalar quantiser; codes are copied as they are."""
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    small = faiss.IndexScalarQuantizer(index.d, index.sq.qtype, index.metric_type)
    small.sq, small.is_trained = index.sq, True
    small.add_sa_codes(codes.reshape(index.ntotal, index.code_size)[rows])
    return small
