"""Re-embedding with another model while the old vectors serve: a second table is filled, then takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedsvc.collections.collection import Collection
from embedsvc.encoder import Encoder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReindexResult:
    """What a re-embedding did: documents encoded in this run, and those found done by an earlier one."""

    documents: int
    resumed: int


def reindex(collection: Collection, encoder: Encoder, *, progress: Progress | None = None) -> ReindexResult:
    """Encode all documents anew with ``encoder``, then search with it: nothing changes until the last moment.

    Killed and called again with the same model, it goes on; with another one it starts anew. Documents
    may be written meanwhile. ``progress`` is called with documents done and their number in all.
    Raises InvalidInputError for a collection without a model or with documents that bring their vectors.
    """
    raise NotImplementedError
