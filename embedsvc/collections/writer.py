"""What can be written within one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document
from embedsvc.collections.lexical import analyze
from embedsvc.collections.metadata import Term, terms_of, terms_of_json
from embedsvc.collections.passages import Span
from embedsvc.collections.schema import Identity, create_passages, document_crc, passage_crc, set_meta
from embedsvc.collections.views import STORED, SnapshotRecord, View

# What a re-embedding fills while the tables without the suffix serve.
NEXT_PASSAGES = "passages_next"
NEXT_TOKENS = "tokens_next"
# Removals are kept for those who have seen all changes but the last, and for an index that is being built.
_REMOVALS_KEPT = 1_000
_REMOVALS_SECONDS = 86_400
_DELETED_AT_ONCE = 1_000  # documents, whose texts are held in memory


@dataclass(frozen=True, eq=False)
class Batch:
    """Checked documents (n) with all that is stored about them.

    ``spans`` are the passages of each document, ``vectors`` (passages, dim) theirs one after the other;
    zeros mean no direction. ``token_vectors`` are bytes per passage, where they are kept.
    """

    documents: Sequence[Document]
    metadata: Sequence[str | None]
    spans: Sequence[Sequence[Span]]
    vectors: NDArray[np.float32]
    words: Sequence[str]
    token_vectors: Sequence[bytes] | None = None


class Writer(View):
    """Reads and writes of one transaction."""

    def upsert(self, batch: Batch) -> int:
        """Insert documents, replacing equal ids; return how many were replaced."""
        if not batch.documents:
            return 0
        generation = self.next_generation("upsert", len(batch.documents))
        replaced = self._delete(self.rows_of([document.id for document in batch.documents]), generation)
        rows = range(self.last_row("documents") + 1, self.last_row("documents") + 1 + len(batch.documents))
        self.connection.executemany(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
            [
                (*values, document_crc(*values))
                for row, document, extra in zip(rows, batch.documents, batch.metadata, strict=True)
                for values in [(row, document.id, str(document.language), extra, document.text)]
            ],
        )
        self.connection.executemany(
            "INSERT INTO lexical (rowid, words) VALUES (?, ?)", zip(rows, batch.words, strict=True)
        )
        self._insert_terms(rows, batch.documents)
        self.insert_passages(rows, batch)
        return replaced

    def insert_passages(
        self, rows: Iterable[int], batch: Batch, table: str = "passages", tokens: str = "tokens"
    ) -> None:
        """Insert the passages of a batch whose documents have these rows."""
        first = self.last_row(table) + 1
        blobs = _blobs(batch.vectors)
        owners = [
            (row, span.start, span.stop, str(document.language))
            for row, document, spans in zip(rows, batch.documents, batch.spans, strict=True)
            for span in spans
        ]
        self.connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (row, *owner, blob, passage_crc(row, owner, blob))
                for row, (owner, blob) in enumerate(zip(owners, blobs, strict=True), first)
            ],
        )
        if batch.token_vectors is not None:
            self.connection.executemany(
                f"INSERT INTO {tokens} VALUES (?, ?)", enumerate(batch.token_vectors, first)
            )

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id; return how many there were."""
        return self.delete_rows(self.rows_of(ids))

    def delete_rows(self, rows: Sequence[int]) -> int:
        """Delete documents by row; return how many there were."""
        if not rows:
            return 0
        return self._delete(rows, self.next_generation("delete", len(rows)))

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """Return the rows of the documents with these ids; those that are not there are left out."""
        found = self.connection.execute(
            "SELECT row FROM documents WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids, ensure_ascii=False),),
        )
        return [row for (row,) in found]

    def make_next_tables(self) -> None:
        """Make the tables that a re-embedding fills, empty."""
        for table in (NEXT_PASSAGES, NEXT_TOKENS):
            self.connection.execute(f"DROP TABLE IF EXISTS {table}")
        create_passages(self.connection, NEXT_PASSAGES, NEXT_TOKENS)

    def set_reindexing(self, progress: str) -> None:
        """Keep how far a re-embedding has come."""
        set_meta(self.connection, {"reindexing": progress})

    def insert_next(self, rows: Sequence[int], batch: Batch) -> None:
        """Insert new vectors of the documents with these rows; one that was deleted meanwhile gets none."""
        self.insert_passages(rows, batch, NEXT_PASSAGES, NEXT_TOKENS)
        orphans = "document >= ? AND document NOT IN (SELECT row FROM documents)"
        self.connection.execute(
            f"DELETE FROM {NEXT_TOKENS} WHERE passage IN (SELECT row FROM {NEXT_PASSAGES} WHERE {orphans})",
            (rows[0],),
        )
        self.connection.execute(f"DELETE FROM {NEXT_PASSAGES} WHERE {orphans}", (rows[0],))

    def take_over(self, identity: Identity, record: SnapshotRecord, gone: Sequence[int]) -> None:
        """Replace all vectors by those of the second table, and the saved index by theirs.

        ``gone`` are the passages that the index has seen and that were deleted since.
        """
        generation = self.next_generation("reindex", self.count())
        for table, following in (("passages", NEXT_PASSAGES), ("tokens", NEXT_TOKENS)):
            self.connection.execute(f"DROP TABLE {table}")
            self.connection.execute(f"ALTER TABLE {following} RENAME TO {table}")
        self.connection.execute(f"DROP INDEX {NEXT_PASSAGES}_document")
        self.connection.execute("CREATE INDEX passages_document ON passages (document)")
        self.connection.execute("DELETE FROM meta WHERE key = 'reindexing'")
        self.connection.execute("DELETE FROM removed")
        self.connection.executemany("INSERT INTO removed VALUES (?, ?)", [(row, generation) for row in gone])
        set_meta(self.connection, asdict(identity))
        self.record_snapshot(record)

    def record_snapshot(self, record: SnapshotRecord) -> None:
        """Name the saved index that may be used from now on, and forget removals that it has seen."""
        self.connection.execute("DELETE FROM snapshot")
        self.connection.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?, ?)", astuple(record))
        self.connection.execute("DELETE FROM removed WHERE generation <= ?", (record.generation,))
        set_meta(self.connection, {"pruned": max(int(self.meta("pruned")), record.generation)})

    def forget_snapshot(self) -> None:
        """Name no saved index any more."""
        self.connection.execute("DELETE FROM snapshot")

    def set_meta(self, **values: Any) -> None:
        """Write values of the table meta."""
        set_meta(self.connection, values)

    def next_generation(self, kind: str, documents: int) -> int:
        """Count a change and write it into the log; return its generation."""
        self.connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        generation = self.generation()
        self.connection.execute(
            "INSERT INTO operations VALUES (?, ?, ?, ?)", (generation, kind, documents, time.time())
        )
        if generation % _REMOVALS_KEPT == 0:
            self._forget_removals(generation - _REMOVALS_KEPT)
        return generation

    def _forget_removals(self, generation: int) -> None:
        """Forget removals up to a generation, if they are old, but none that the saved index has not seen."""
        old = self.connection.execute(
            "SELECT generation FROM operations WHERE generation <= ? AND at <= ?"
            " ORDER BY generation DESC LIMIT 1",
            (generation, time.time() - _REMOVALS_SECONDS),
        ).fetchone()
        if old is None:
            return
        (generation,) = old
        record = self.snapshot()
        self.connection.execute(
            "DELETE FROM removed WHERE generation <= ? AND row > ?",
            (generation, 0 if record is None else record.last_row),
        )
        self.set_meta(pruned=max(int(self.meta("pruned")), generation))

    def _delete(self, rows: Sequence[int], generation: int) -> int:
        return sum(
            self._delete_some(rows[start : start + _DELETED_AT_ONCE], generation)
            for start in range(0, len(rows), _DELETED_AT_ONCE)
        )

    def _delete_some(self, rows: Sequence[int], generation: int) -> int:
        wanted = (json.dumps(rows),)
        among = "IN (SELECT value FROM json_each(?))"
        gone = self.connection.execute(
            f"SELECT row, text, language, metadata FROM documents WHERE row {among}", wanted
        ).fetchall()
        # Without the text itself, FTS5 has to be told again what words the document had.
        self.connection.executemany(
            "INSERT INTO lexical (lexical, rowid, words) VALUES ('delete', ?, ?)",
            [(row, analyze(text, language)) for row, text, language, _ in gone],
        )
        self._delete_terms([(row, terms_of_json(metadata)) for row, _, _, metadata in gone])
        passages = self.connection.execute(f"SELECT row FROM passages WHERE document {among}", wanted)
        removed = passages.fetchall()
        self.connection.executemany(
            "INSERT INTO removed VALUES (?, ?)", [(row, generation) for (row,) in removed]
        )
        self.connection.executemany("DELETE FROM tokens WHERE passage = ?", removed)
        if self.reindexing() is not None:
            of_these = f"(SELECT row FROM {NEXT_PASSAGES} WHERE document {among})"
            self.connection.execute(f"DELETE FROM {NEXT_TOKENS} WHERE passage IN {of_these}", wanted)
            self.connection.execute(f"DELETE FROM {NEXT_PASSAGES} WHERE document {among}", wanted)
        self.connection.execute(f"DELETE FROM passages WHERE document {among}", wanted)
        self.connection.execute(f"DELETE FROM documents WHERE row {among}", wanted)
        return len(gone)

    def _insert_terms(self, rows: Sequence[int], documents: Sequence[Document]) -> None:
        terms = [
            (row, term)
            for row, document in zip(rows, documents, strict=True)
            if document.metadata
            for term in terms_of(document.metadata)
        ]
        numbers = self._field_numbers({term.field for _, term in terms})
        self.connection.executemany(
            "INSERT INTO terms VALUES (?, ?, ?, ?)",
            [(numbers[term.field], term.kind, term.value, row) for row, term in terms],
        )

    def _delete_terms(self, terms: Sequence[tuple[int, list[Term]]]) -> None:
        numbers = self._field_numbers({term.field for _, own in terms for term in own})
        self.connection.executemany(
            "DELETE FROM terms WHERE field = ? AND kind = ? AND value = ? AND document = ?",
            [(numbers[term.field], term.kind, term.value, row) for row, own in terms for term in own],
        )

    def _field_numbers(self, names: set[str]) -> dict[str, int]:
        if not names:
            return {}
        self.connection.executemany(
            "INSERT OR IGNORE INTO fields (name) VALUES (?)", [(name,) for name in sorted(names)]
        )
        # Not all of them: where keys are data, there are as many fields as documents.
        number = "SELECT field FROM fields WHERE name = ?"
        return {name: self.number(number, name) for name in names}


def _blobs(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return each row as it is stored: float16, or nothing for a row of zeros."""
    stored = np.ascontiguousarray(vectors, STORED)
    width = stored.shape[1] * STORED.itemsize
    content = stored.tobytes()
    some = np.any(vectors, axis=1)
    return [content[i * width : (i + 1) * width] if some[i] else b"" for i in range(len(stored))]
