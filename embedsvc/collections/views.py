"""What can be read and written within one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document
from embedsvc.errors import StorageError

STORED = np.dtype("<f2")
_FETCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class VectorRows:
    """Row numbers (n,) ascending, their unit vectors (n, dim) float32 and languages (n,) as bytes."""

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    languages: NDArray[np.bytes_]


@dataclass(frozen=True, eq=False)
class SnapshotRecord:
    """The saved index that may be used: the hash of its file, and the row number of each position (n,)."""

    sha256: str
    generation: int
    rows: NDArray[np.int64]


class View:
    """Reads of one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def meta(self, key: str) -> Any:
        """Return a value of the table meta; raise StorageError when it is not there."""
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise StorageError(f"the database has no {key!r}; it is not a collection")
        return found[0]

    def generation(self) -> int:
        """Return the number of changes so far."""
        return int(self.meta("generation"))

    def count(self) -> int:
        """Return the number of documents."""
        return int(self._connection.execute("SELECT count(*) FROM documents").fetchone()[0])

    def languages(self) -> dict[str, int]:
        """Return the number of documents per language, most first."""
        found = self._connection.execute("SELECT language, count(*) FROM documents GROUP BY language")
        return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))

    def document(self, id_: str) -> Document | None:
        """Return the document with an id, if there is one."""
        found = self._connection.execute(
            "SELECT id, text, language, metadata FROM documents WHERE id = ?", (id_,)
        ).fetchone()
        return None if found is None else _document(*found)

    def documents(self, rows: Sequence[int]) -> list[Document]:
        """Return the documents of these rows, in their order."""
        found = self._connection.execute(
            "SELECT row, id, text, language, metadata FROM documents"
            " WHERE row IN (SELECT value FROM json_each(?))",
            (json.dumps(list(rows)),),
        )
        by_row = {row: _document(*values) for row, *values in found}
        return [by_row[row] for row in rows]

    def vectors_after(self, row: int, dimension: int) -> VectorRows:
        """Return every row above ``row`` whose vector is not zero; raise StorageError for a damaged one."""
        cursor = self._connection.execute(
            "SELECT row, language, vector FROM documents WHERE row > ? ORDER BY row", (row,)
        )
        parts = []
        while chunk := cursor.fetchmany(_FETCH_ROWS):
            parts.append(_vector_rows(chunk, dimension))
        parts.append(_vector_rows([], dimension))
        return VectorRows(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.languages for part in parts]),
        )

    def language_of_rows(self) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
        """Return all row numbers (n,) ascending and their languages (n,), from the index on languages."""
        found = self._connection.execute(
            "SELECT row, language FROM documents INDEXED BY documents_language"
        ).fetchall()
        rows = np.array([row for row, _ in found], np.int64)
        order = np.argsort(rows)
        return rows[order], _codes([language for _, language in found])[order]

    def last_row(self) -> int:
        """Return the highest row number ever given."""
        found = self._connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'documents'"
        ).fetchone()
        return 0 if found is None else int(found[0])

    def removed_since(self, generation: int) -> NDArray[np.int64]:
        """Return the rows (n,) removed after a generation, which must not be below meta 'pruned'."""
        found = self._connection.execute("SELECT row FROM removed WHERE generation > ?", (generation,))
        return np.array([row for (row,) in found], np.int64)

    def snapshot(self) -> SnapshotRecord | None:
        """Return the record of the saved index, if there is one."""
        found = self._connection.execute("SELECT sha256, generation, rows FROM snapshot").fetchone()
        if found is None:
            return None
        return SnapshotRecord(found[0], found[1], np.frombuffer(found[2], "<i8").astype(np.int64))


class Writer(View):
    """Reads and writes of one transaction."""

    def upsert(
        self, documents: Sequence[Document], metadata: Sequence[str | None], vectors: NDArray[Any]
    ) -> int:
        """Insert documents with vectors (n, dim), replacing equal ids; return how many were replaced."""
        replaced = self.delete([document.id for document in documents])
        blobs = np.ascontiguousarray(vectors, STORED)
        self._connection.executemany(
            "INSERT INTO documents (id, text, language, metadata, vector) VALUES (?, ?, ?, ?, ?)",
            [
                (document.id, document.text, document.language, extra, blob.tobytes())
                for document, extra, blob in zip(documents, metadata, blobs, strict=True)
            ],
        )
        if not replaced:
            self._next_generation()
        return replaced

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id; return how many there were."""
        found = self._connection.execute(
            "SELECT row FROM documents WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids), ensure_ascii=False),),
        ).fetchall()
        if found:
            generation = self._next_generation()
            self._connection.executemany("DELETE FROM documents WHERE row = ?", found)
            self._connection.executemany(
                "INSERT INTO removed VALUES (?, ?)", [(row, generation) for (row,) in found]
            )
        return len(found)

    def record_snapshot(self, record: SnapshotRecord) -> None:
        """Name the saved index that may be used from now on, and forget removals that it has seen."""
        self._connection.execute("DELETE FROM snapshot")
        self._connection.execute(
            "INSERT INTO snapshot VALUES (?, ?, ?)",
            (record.sha256, record.generation, record.rows.astype("<i8").tobytes()),
        )
        self._connection.execute("DELETE FROM removed WHERE generation <= ?", (record.generation,))
        self._connection.execute(
            "UPDATE meta SET value = max(value, ?) WHERE key = 'pruned'", (record.generation,)
        )

    def _next_generation(self) -> int:
        self._connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        return self.generation()


def _document(id_: str, text: str, language: str, metadata: str | None) -> Document:
    return Document(id_, text, language, None if metadata is None else json.loads(metadata))


def _vector_rows(found: list[tuple[int, str, bytes]], dimension: int) -> VectorRows:
    for row, _, blob in found:
        if len(blob) != dimension * STORED.itemsize:
            raise StorageError(f"row {row} has a vector of {len(blob)} bytes; {dimension} float16 expected")
    stored = np.frombuffer(b"".join(blob for *_, blob in found), STORED).reshape(-1, dimension)
    vectors = stored.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    # A text without any token that the model knows has a vector of zeros: it is kept, but never found.
    usable = (lengths > 0) & np.isfinite(lengths)
    return VectorRows(
        np.array([row for row, *_ in found], np.int64)[usable],
        vectors[usable] / lengths[usable, None],
        _codes([language for _, language, _ in found])[usable],
    )


def _codes(languages: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array(languages, "S3")
