"""The kinds of index: one file with one frozen dataclass of parameters each, and one line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds.flat import Flat
from indexing.kinds.hnsw import Hnsw
from indexing.kinds.ivf_pq import IvfPq
from indexing.kinds.pq_scan import PqScan
from indexing.kinds.rabitq import RaBitQ
from indexing.kinds.stored import Rows

__all__ = ["KINDS", "Flat", "Hnsw", "IvfPq", "Kind", "PqScan", "RaBitQ", "Rows", "kind_from"]


class Kind(Protocol):
    """What an index kind is: its parameters as dataclass fields, and these things."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def keeps_vectors(self) -> bool:
        """Whether vectors can be reconstructed."""

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""

    def search(
        self, index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""

    def search_ladder(self, count: int, k: int) -> Sequence[Kind]:
        """Return this kind with other search parameters, the cost of a search for ``k`` growing."""

    def bytes_per_vector(self, dimension: int, count: int) -> float:
        """Return the bytes in memory per vector of ``dimension`` when there are ``count``."""


KINDS: Mapping[str, type[Kind]] = {kind.name: kind for kind in (Flat, Hnsw, IvfPq, PqScan, RaBitQ)}


def kind_from(name: str, parameters: Mapping[str, Any]) -> Kind:
    """Return the kind of that name with those parameters.

    Raises:
        IndexingError: the name or a parameter is unknown, or a value is out of range.
    """
    if name not in KINDS:
        raise IndexingError(f"unknown index kind {name!r}; known: {', '.join(KINDS)}")
    try:
        return KINDS[name](**parameters)
    except TypeError as error:
        raise IndexingError(f"index kind {name!r}: {error}") from error
