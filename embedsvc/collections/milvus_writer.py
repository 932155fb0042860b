"""Writes in Milvus, which knows no transaction: their order is what keeps documents whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from embedsvc.collections.collection import UpsertResult
from embedsvc.collections.milvus_client import MilvusTable, Row
from embedsvc.collections.milvus_filters import all_of
from embedsvc.collections.milvus_rows import IS_DOCUMENT, chunks, keys_expression
from embedsvc.collections.milvus_schema import Notes, key_of, note_rows, rows_of
from embedsvc.collections.writer import Batch

_CALL_ROWS = 500
_CALL_BYTES = 16 * 1024 * 1024  # Milvus takes 64 MB


class MilvusWriter:
    """Writes rows of documents; one thread at a time."""

    def __init__(self, table: MilvusTable, dimension: int) -> None:
        self._table = table
        self._dimension = dimension
        self._lock = threading.Lock()
        self._noted: set[str] = set()

    def write(self, batch: Batch, revisions: Sequence[int] | None = None) -> UpsertResult:
        """Insert documents, or replace those with the same ids; ``revisions`` are the time, unless given."""
        with self._lock:
            written, notes = rows_of(batch, revisions or [time.time_ns()] * len(batch.documents))
            # Row 0 is the last of each: what has it, is complete.
            rows = sorted((row for own in written for row in own), key=lambda row: row["number"] == 0)
            before = self._rows_before([key_of(document.id) for document in batch.documents])
            self._note(notes)
            for part in _calls(rows):
                self._table.upsert(part)
            # Only now: until the new rows stand, the old ones are the document.
            self._delete_rows({row["pk"] for row in before} - {row["pk"] for row in rows})
        updated = sum(row["number"] == 0 for row in before)
        return UpsertResult(len(batch.documents) - updated, updated)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id; return how many there were."""
        deleted = 0
        with self._lock:
            for keys in chunks(list(dict.fromkeys(map(key_of, ids)))):
                deleted += self._table.count(all_of(IS_DOCUMENT, keys_expression(keys)))
                self._table.delete(keys_expression(keys))
        return deleted

    def delete_all(self, expression: str) -> int:
        """Delete the documents that an expression lets through; return how many there were."""
        with self._lock:
            deleted = self._table.count(all_of(IS_DOCUMENT, expression))
            self._table.delete(all_of("number >= 0", expression))
        return deleted

    def _rows_before(self, keys: Sequence[str]) -> list[Row]:
        """Return the rows of documents as they stand, those that an interrupted upsert has left included."""
        return [
            row for part in chunks(keys) for row in self._table.query(keys_expression(part), ["pk", "number"])
        ]

    def _note(self, notes: Notes) -> None:
        """Note languages and fields before the first document that has them."""
        rows = note_rows(notes, self._dimension)
        for part in _calls([row for key, row in rows.items() if key not in self._noted]):
            self._table.upsert(part)
        self._noted |= rows.keys()

    def _delete_rows(self, pks: set[str]) -> None:
        for part in chunks(sorted(pks)):
            self._table.delete(f"pk in [{', '.join(repr(pk) for pk in part)}]")


def _calls(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield rows, as many at a time as one call to Milvus takes."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        # JSON of metadata is at most about as large as the ranges and marks made of it.
        size += row["vector"].nbytes + 4 * len(row["text"]) + len(row["words"]) + 3 * len(str(row["ranges"]))
        size += 40 * len(row["marks"])
        if len(part) >= _CALL_ROWS or size >= _CALL_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
