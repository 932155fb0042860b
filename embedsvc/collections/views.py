"""What can be read within one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document
from embedsvc.collections.filters import MAX_VALUES, Condition, Exists, InRange, OneOf
from embedsvc.collections.lexical import analyze
from embedsvc.errors import StorageError

STORED = np.dtype("<f2")
LANGUAGE = np.dtype("S3")
_FETCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class PassageRows:
    """Passages that have a direction: row numbers (n,) ascending, the rows of their documents (n,),
    languages (n,) as bytes, and unit vectors (n, dim) float32.
    """

    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    languages: NDArray[np.bytes_]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class SnapshotRecord:
    """The saved index that may be used: its folder, the hash of its manifest, and what it has seen."""

    folder: str
    sha256: str
    generation: int
    last_row: int
    passages: int


class StoredPassage(NamedTuple):
    """A passage with its document; ``start`` and ``stop`` count characters of the text."""

    row: int
    start: int
    stop: int
    id: str
    text: str
    language: str
    metadata: str | None  # JSON


@dataclass(frozen=True)
class Operation:
    """One entry of the log; ``at`` in seconds since 1970."""

    generation: int
    kind: str
    documents: int
    at: float


class View:
    """Reads of one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def meta(self, key: str) -> Any:
        """Return a value of the table meta; raise StorageError when it is not there."""
        found = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise StorageError(f"the database has no {key!r}; it is not a collection")
        return found[0]

    def generation(self) -> int:
        """Return the number of changes so far."""
        return int(self.meta("generation"))

    def count(self) -> int:
        """Return the number of documents."""
        return self.number("SELECT count(*) FROM documents")

    def languages(self) -> dict[str, int]:
        """Return the number of documents per language, most first."""
        found = self.connection.execute("SELECT language, count(*) FROM documents GROUP BY language")
        return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))

    def document(self, id_: str, dimension: int | None = None) -> Document | None:
        """Return the document with an id, if there is one; with a ``dimension``, with its vector."""
        found = self.connection.execute(
            "SELECT row, id, text, language, metadata FROM documents WHERE id = ?", (id_,)
        ).fetchone()
        if found is None:
            return None
        vector = None if dimension is None else self._own_vector(found[0], dimension)
        return _document(*found[1:], vector=vector)

    def documents(self, *, vectors: int | None = None) -> Iterator[tuple[int, Document]]:
        """Yield the row of every document and the document, oldest first.

        ``vectors`` is the dimension when they are wanted; a document of several passages has none.
        """
        found = self.connection.execute(
            "SELECT row, id, text, language, metadata FROM documents ORDER BY row"
        )
        for row, *values in found:
            vector = None if vectors is None else self._own_vector(row, vectors)
            yield row, _document(*values, vector=vector)

    def documents_after(self, row: int, limit: int) -> list[tuple[int, Document]]:
        """Return the rows of up to ``limit`` documents above ``row``, and the documents."""
        found = self.connection.execute(
            "SELECT row, id, text, language, metadata FROM documents WHERE row > ? ORDER BY row LIMIT ?",
            (row, limit),
        )
        return [(values[0], _document(*values[1:])) for values in found]

    def documents_without_text(self) -> list[str]:
        """Return the ids of the documents that are a vector only."""
        return [id_ for (id_,) in self.connection.execute("SELECT id FROM documents WHERE text = ''")]

    def passages(self, rows: Sequence[int]) -> list[StoredPassage]:
        """Return passages with their documents, in the order of ``rows``; StorageError for one not there."""
        found = self.connection.execute(
            "SELECT p.row, p.start, p.stop, d.id, d.text, d.language, d.metadata FROM json_each(?) AS wanted"
            " JOIN passages AS p ON p.row = wanted.value JOIN documents AS d ON d.row = p.document",
            (json.dumps(rows),),
        )
        by_row = {values[0]: StoredPassage._make(values) for values in found}
        if len(by_row) != len(rows):
            missing = next(row for row in rows if row not in by_row)
            raise StorageError(
                f"passage {missing} of the index is not in the database; verify the collection"
            )
        return [by_row[row] for row in rows]

    def best_passages(self, documents: Sequence[int], query: str) -> dict[int, int]:
        """Return for each of these documents the row of the passage that has most words of ``query``."""
        found = self.connection.execute(
            "SELECT p.document, p.row, p.start, p.stop, d.text, d.language FROM json_each(?) AS wanted"
            " JOIN passages AS p ON p.document = wanted.value JOIN documents AS d ON d.row = p.document"
            " ORDER BY p.row",
            (json.dumps(documents),),
        )
        best: dict[int, tuple[int, int]] = {}
        asked: dict[str, set[str]] = {}  # the words of the query, by language
        for document, row, start, stop, text, language in found:
            shared = 0
            if (start, stop) != (0, len(text)):
                if language not in asked:
                    asked[language] = set(analyze(query, language).split())
                shared = len(asked[language] & set(analyze(text[start:stop], language).split()))
            if document not in best or shared > best[document][0]:
                best[document] = shared, row
        return {document: row for document, (_, row) in best.items()}

    def stored_passages(
        self, documents: Sequence[int], dimension: int
    ) -> dict[int, list[tuple[int, int, NDArray[np.float32]]]]:
        """Return start, stop and vector (dim,) of each passage of documents; zeros without a direction."""
        found = self.connection.execute(
            "SELECT row, document, language, vector, start, stop FROM passages"
            " WHERE document IN (SELECT value FROM json_each(?)) ORDER BY row",
            (json.dumps(documents),),
        ).fetchall()
        directed = _passage_rows([values[:4] for values in found], dimension)
        vectors = dict(zip(directed.rows.tolist(), directed.vectors, strict=True))
        passages: dict[int, list[tuple[int, int, NDArray[np.float32]]]] = defaultdict(list)
        for row, document, _, _, start, stop in found:
            passages[document].append((start, stop, vectors.get(row, np.zeros(dimension, np.float32))))
        return passages

    def document_rows(self, mask: NDArray[np.bool_], languages: frozenset[str] | None) -> list[int]:
        """Return the rows of the documents that a mask over rows and languages let through."""
        found = self.connection.execute("SELECT row, language FROM documents INDEXED BY documents_language")
        return [row for row, code in found if mask[row] and (languages is None or code in languages)]

    def document_languages(self, documents: Sequence[int]) -> dict[int, str]:
        """Return the language of each of these documents."""
        found = self.connection.execute(
            "SELECT row, language FROM documents WHERE row IN (SELECT value FROM json_each(?))",
            (json.dumps(documents),),
        )
        return dict(found.fetchall())

    def languages_of(self, mask: NDArray[np.bool_], languages: frozenset[str] | None) -> dict[str, int]:
        """Return the documents per language, most first, among those that a mask over rows lets through."""
        found = self.connection.execute(
            "SELECT row, language FROM documents INDEXED BY documents_language"
        ).fetchall()
        counts = Counter(
            code for row, code in found if mask[row] and (languages is None or code in languages)
        )
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def passages_after(self, row: int, dimension: int, table: str = "passages") -> PassageRows:
        """Return every passage above ``row`` that has a direction; raise StorageError for a damaged one."""
        cursor = self.connection.execute(
            f"SELECT row, document, language, vector FROM {table} WHERE row > ? ORDER BY row", (row,)
        )
        parts = []
        while chunk := cursor.fetchmany(_FETCH_ROWS):
            parts.append(_passage_rows(chunk, dimension))
        return joined(parts, dimension)

    def passage_rows(self, table: str = "passages") -> NDArray[np.int64]:
        """Return the rows (n,) of all passages, ascending."""
        found = self.connection.execute(f"SELECT row FROM {table} INDEXED BY {table}_document")
        return np.sort(np.array([row for (row,) in found], np.int64))

    def reindexing(self) -> str | None:
        """Return how far a re-embedding has come; None when there is none."""
        found = self.connection.execute("SELECT value FROM meta WHERE key = 'reindexing'").fetchone()
        return None if found is None else str(found[0])

    def passage_count(self, last_row: int, table: str = "passages") -> int:
        """Return the number of passages up to a row."""
        return self.number(
            f"SELECT count(*) FROM {table} INDEXED BY {table}_document WHERE row <= ?", last_row
        )

    def last_row(self, table: str = "passages") -> int:
        """Return the highest row number of a table ever given."""
        return self.number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", table)

    def removed_since(self, generation: int) -> NDArray[np.int64]:
        """Return the passages (n,) removed after a generation.

        Below meta 'pruned' only those are known that a saved index of that generation holds.
        """
        found = self.connection.execute("SELECT row FROM removed WHERE generation > ?", (generation,))
        return np.array([row for (row,) in found], np.int64)

    def snapshot(self) -> SnapshotRecord | None:
        """Return the record of the saved index, if there is one."""
        columns = ", ".join(field.name for field in fields(SnapshotRecord))
        found = self.connection.execute(f"SELECT {columns} FROM snapshot").fetchone()
        return None if found is None else SnapshotRecord(*found)

    def operations(self, limit: int) -> list[Operation]:
        """Return the last entries of the log, the newest first."""
        found = self.connection.execute(
            "SELECT generation, kind, documents, at FROM operations ORDER BY generation DESC LIMIT ?",
            (limit,),
        )
        return [Operation(*values) for values in found]

    def field_names(self) -> list[str]:
        """Return the metadata fields that any document has had."""
        return [name for (name,) in self.connection.execute("SELECT name FROM fields")]

    def values_of(self, field: str) -> list[tuple[str, Any, int]]:
        """Return kind, value and document row of every value of a metadata field but null, in that order."""
        return self.connection.execute(
            "SELECT kind, value, document FROM terms WHERE field = (SELECT field FROM fields WHERE name = ?)"
            " AND kind <> 'z' ORDER BY kind, value, document",
            (field,),
        ).fetchall()

    def matching(self, condition: Condition) -> NDArray[np.int64]:
        """Return the rows (n,) of the documents that satisfy a condition, in any order."""
        sql, values = _condition_sql(condition)
        found = self.connection.execute(sql, values).fetchall()
        return np.unique(np.array([row for (row,) in found], np.int64))

    def documents_with(self, term: str) -> int:
        """Return the number of documents that have a term of `analyze`."""
        found = self.connection.execute("SELECT doc FROM lexical_terms WHERE term = ?", (term,)).fetchone()
        return 0 if found is None else int(found[0])

    def lexical_matches(self, expression: str) -> Iterator[tuple[int, float]]:
        """Yield the row and BM25 score of each document that has a word of the expression, best first."""
        yield from self.connection.execute(
            "SELECT rowid, -bm25(lexical) FROM lexical WHERE lexical MATCH ? ORDER BY rank, rowid",
            (expression,),
        )

    def token_vectors(self, passages: Sequence[int]) -> dict[int, bytes]:
        """Return the stored vectors of the tokens of these passages; those without are left out."""
        found = self.connection.execute(
            "SELECT passage, vectors FROM tokens WHERE passage IN (SELECT value FROM json_each(?))",
            (json.dumps(passages),),
        )
        return dict(found.fetchall())

    def metadata_of(self, documents: Sequence[int]) -> dict[int, dict[str, Any] | None]:
        """Return the metadata of these documents by row."""
        found = self.connection.execute(
            "SELECT row, metadata FROM documents WHERE row IN (SELECT value FROM json_each(?))",
            (json.dumps(documents),),
        )
        return {row: None if text is None else json.loads(text) for row, text in found}

    def _own_vector(self, document: int, dimension: int) -> NDArray[np.float32] | None:
        found = self.connection.execute(
            "SELECT row, document, language, vector FROM passages WHERE document = ? LIMIT 2", (document,)
        ).fetchall()
        if len(found) != 1 or not found[0][-1]:
            return None
        vector: NDArray[np.float32] = _passage_rows(found, dimension).vectors[0]
        return vector

    def number(self, sql: str, *values: Any) -> int:
        """Return the one number that a query gives."""
        return int(self.connection.execute(sql, values).fetchone()[0])


def joined(parts: Sequence[PassageRows], dimension: int) -> PassageRows:
    """Return the parts one after the other."""
    parts = [_passage_rows([], dimension), *parts]
    return PassageRows(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.documents for part in parts]),
        np.concatenate([part.languages for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )


def _condition_sql(condition: Condition) -> tuple[str, list[Any]]:
    start = "SELECT document FROM terms WHERE field = (SELECT field FROM fields WHERE name = ?)"
    if isinstance(condition, Exists):
        return start, [condition.field]
    if isinstance(condition, OneOf):
        if not condition.terms:
            return f"{start} AND 0", [condition.field]
        # Not as JSON: SQLite ends a JSON string at a NUL. Of few lengths, filled with NULL, which equals
        # nothing: SQLite keeps the last 256 statements of a connection, and these are long.
        count = len(condition.terms)
        length = max(count, min(1 << (count - 1).bit_length(), MAX_VALUES))
        pairs = ", ".join(["(?, ?)"] * length)
        same = (
            f"WITH wanted (kind, value) AS (VALUES {pairs})"
            " SELECT terms.document FROM wanted CROSS JOIN terms"
            " WHERE terms.field = (SELECT field FROM fields WHERE name = ?)"
            " AND terms.kind = wanted.kind AND terms.value = wanted.value"
        )
        values = [value for term in condition.terms for value in (term.kind, term.value)]
        return same, [*values, *[None] * (2 * (length - count)), condition.field]
    return _range_sql(start, condition)


def _range_sql(start: str, condition: InRange) -> tuple[str, list[Any]]:
    sql, values = f"{start} AND kind = ?", [condition.field, condition.kind]
    for bound, strict, sign in (
        (condition.low, condition.strict_low, ">"),
        (condition.high, condition.strict_high, "<"),
    ):
        if bound is not None:
            sql += f" AND value {sign}{'' if strict else '='} ?"
            values.append(bound)  # type: ignore[arg-type]
    return sql, values


def _document(
    id_: str, text: str, language: str, metadata: str | None, *, vector: NDArray[np.float32] | None = None
) -> Document:
    return Document(id_, text, language, None if metadata is None else json.loads(metadata), vector)


def _passage_rows(found: Sequence[tuple[int, int, str, bytes]], dimension: int) -> PassageRows:
    """Decode passages; one whose text has no token that the model knows has no vector and is never found."""
    found = [values for values in found if values[3]]
    for row, _, _, blob in found:
        if len(blob) != dimension * STORED.itemsize:
            raise StorageError(f"row {row} has a vector of {len(blob)} bytes; {dimension} float16 expected")
    stored = np.frombuffer(b"".join(blob for *_, blob in found), STORED).reshape(-1, dimension)
    vectors = stored.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    broken = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(broken):
        raise StorageError(f"row {found[broken[0]][0]} has a vector that is not finite or has no direction")
    return PassageRows(
        np.array([row for row, *_ in found], np.int64),
        np.array([document for _, document, *_ in found], np.int64),
        np.array([language for _, _, language, _ in found], LANGUAGE),
        vectors / lengths,
    )
