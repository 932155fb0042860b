"""The kinds of index: one file with one frozen dataclass of parameters each, and one line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.kinds.flat import Flat
from indexing.kinds.hnsw import Hnsw

__all__ = ["KINDS", "Flat", "Hnsw", "Kind", "kind_from"]


class Kind(Protocol):
    """What an index kind is: its parameters as dataclass fields, and these four things."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self, vectors: NDArray[np.float32]) -> Any:
        """Return a FAISS index of ``vectors`` ``(n, dim)``."""

    def accepts(self, index: Any) -> bool:
        """Whether a FAISS index read from a file is of this kind."""

    def search(
        self, index: Any, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return FAISS scores and rows ``(q, k)``, only from ``rows`` (ascending) if given."""


KINDS: Mapping[str, type[Kind]] = {kind.name: kind for kind in (Flat, Hnsw)}


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
