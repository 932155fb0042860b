"""Re-embedding with another model while the old vectors serve: a second table is filled, then takes over.

Document rows only grow, so that one number says how far the work has come: it is kept beside the new
vectors, in the same transaction. Documents written meanwhile have higher rows; deletions are made in both
tables. The index of the new vectors is built before the one transaction in which all changes hands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.collection import INDEX, Collection
from embedsvc.collections.document import Document
from embedsvc.collections.intake import Intake
from embedsvc.collections.schema import Identity
from embedsvc.collections.snapshots import (
    build_snapshot,
    exclusive,
    only_builder,
    save_snapshot,
    snapshot_content,
)
from embedsvc.collections.store import Store, identity_of
from embedsvc.collections.views import SnapshotRecord, View
from embedsvc.collections.writer import NEXT_PASSAGES, Writer
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, UnavailableError

Progress = Callable[[int, int], None]
_BATCH = 500


@dataclass(frozen=True)
class ReindexResult:
    """What a re-embedding did: documents encoded in this run, and those found done by an earlier one."""

    documents: int
    resumed: int


@dataclass(frozen=True)
class _Progress:
    """How far a re-embedding has come: documents done, the last row among them, whose vectors they are."""

    identity: Identity
    last_document: int = 0
    done: int = 0


def reindex(collection: Collection, encoder: Encoder, *, progress: Progress | None = None) -> ReindexResult:
    """Encode all documents anew with ``encoder``, then search with it: nothing changes until the last moment.

    Killed and called again with the same model, it goes on; with another one it starts anew. Documents
    may be written meanwhile. ``progress`` is called with documents done and their number in all.
    Raises InvalidInputError for a collection without a model or a document without a text, and
    UnavailableError when another process is re-embedding the collection.
    """
    work = _Reindexing(collection, encoder, progress or (lambda _done, _total: None))
    with exclusive(collection.path / "reindex.lock") as mine:
        if not mine:
            raise UnavailableError(f"collection {collection.name!r} is being re-embedded already")
        return work.run()


class _Reindexing:
    def __init__(self, collection: Collection, encoder: Encoder, progress: Progress) -> None:
        self._store: Store = collection.store
        self._store.check_writable()
        self._folder = collection.path / INDEX
        self._report = progress
        current = self._store.identity()
        if not current.fingerprint:
            raise InvalidInputError(
                f"collection {collection.name!r} has no model: its vectors came with the documents"
            )
        identity = Identity(encoder.name, encoder.fingerprint, encoder.dimension, current.epoch + 1)
        self._intake = Intake(identity, self._store.options, encoder)
        self._state = _Progress(identity)

    def run(self) -> ReindexResult:
        """Do all that is left to do."""
        with self._store.writing() as writer:
            self._state = self._resumed(writer)
        resumed = self._state.done
        self._encode_all()
        # Nobody else may build an index meanwhile: who does removes folders that are not recorded yet.
        with only_builder(self._folder, wait=True):
            record, rows = self._built()
            while not self._flip(record, rows):
                self._encode_all()
        return ReindexResult(self._state.done - resumed, resumed)

    def _resumed(self, writer: Writer) -> _Progress:
        """Return how far an earlier run came, or make the tables for a new one."""
        stored = writer.reindexing()
        if stored is not None:
            values = json.loads(stored)
            identity = Identity(**values["identity"])
            if replace(identity, model=self._state.identity.model) == self._state.identity:
                return replace(self._state, last_document=values["last_document"], done=values["done"])
        _check_texts(writer.documents_without_text())
        writer.make_next_tables()
        writer.set_reindexing(json.dumps(asdict(self._state)))
        return self._state

    def _encode_all(self) -> None:
        while True:
            with self._store.reading() as view:
                found = view.documents_after(self._state.last_document, _BATCH)
                total = view.count()
            self._report(min(self._state.done, total), total)
            if not found:
                return
            self._encode(found)

    def _encode(self, found: Sequence[tuple[int, Document]]) -> None:
        _check_texts([document.id for _, document in found if not document.text])
        batch = self._intake.batch([document for _, document in found])
        rows = [row for row, _ in found]
        with self._store.writing() as writer:
            self._state = replace(self._state, last_document=rows[-1], done=self._state.done + len(found))
            writer.insert_next(rows, batch)
            writer.set_reindexing(json.dumps(asdict(self._state)))

    def _built(self) -> tuple[SnapshotRecord, NDArray[np.int64]]:
        """Save an index of the new vectors; return its record and the rows of all passages it has seen."""
        with self._store.reading() as view:
            content = snapshot_content(view, self._state.identity, self._store.options, NEXT_PASSAGES)
            rows = view.passage_rows(NEXT_PASSAGES)
        return save_snapshot(build_snapshot(content, self._store.options), self._folder), rows

    def _flip(self, record: SnapshotRecord, rows: NDArray[np.int64]) -> bool:
        """Let the new vectors take over, unless there are documents that have none yet."""
        with self._store.writing() as writer:
            if writer.documents_after(self._state.last_document, 1):
                return False
            gone = np.setdiff1d(rows, writer.passage_rows(NEXT_PASSAGES))
            writer.take_over(self._state.identity, record, gone.tolist())
        return True


def _check_texts(without: Sequence[str]) -> None:
    if without:
        raise InvalidInputError(
            f"document {without[0]!r} has no text, only a vector: it cannot be re-embedded"
        )


def reindexing(view: View) -> Identity | None:
    """Return the model that an unfinished re-embedding is for."""
    stored = view.reindexing()
    return None if stored is None else Identity(**json.loads(stored)["identity"])


__all__ = ["ReindexResult", "identity_of", "reindex", "reindexing"]
