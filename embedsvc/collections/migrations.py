"""Older collections brought to the present format, each in one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedsvc.collections.document import Document
from embedsvc.collections.lexical import ANALYZER, analyze
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.passages import Span
from embedsvc.collections.schema import Identity, create_lexical, create_tables
from embedsvc.collections.views import STORED
from embedsvc.collections.writer import Batch, Writer
from embedsvc.errors import StorageError

_BATCH = 1000


def migrate(writer: Writer) -> None:
    """Turn a collection of format version 1 (a document, a vector) into the present one."""
    connection = writer.connection
    if writer.meta("format_version") != 1:
        return  # another process was quicker
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    connection.execute("DROP INDEX documents_language")
    connection.execute("ALTER TABLE documents RENAME TO old_documents")
    for table in ("meta", "removed", "snapshot"):
        connection.execute(f"DROP TABLE {table}")
    identity = Identity(meta["model"], meta["fingerprint"], meta["dimension"])
    create_tables(connection, identity, CollectionOptions())
    writer.set_meta(created=meta["created"], generation=meta["generation"], pruned=meta["generation"])
    cursor = connection.execute("SELECT id, text, language, metadata, vector FROM old_documents ORDER BY row")
    while chunk := cursor.fetchmany(_BATCH):
        writer.upsert(_batch(chunk, identity.dimension))
    connection.execute("DROP TABLE old_documents")


def rebuild_lexical(writer: Writer) -> None:
    """Make the words of all documents anew, by the present analysis."""
    if writer.meta("analyzer") == ANALYZER:
        return  # another process was quicker
    create_lexical(writer.connection)
    cursor = writer.connection.execute("SELECT row, language, text FROM documents")
    while chunk := cursor.fetchmany(_BATCH):
        writer.connection.executemany(
            "INSERT INTO lexical (rowid, words) VALUES (?, ?)",
            [(row, analyze(text, language)) for row, language, text in chunk],
        )
    writer.set_meta(analyzer=ANALYZER)


def _batch(found: Sequence[tuple[Any, ...]], dimension: int) -> Batch:
    documents = [
        Document(id_, text, language, None if metadata is None else json.loads(metadata))
        for id_, text, language, metadata, _ in found
    ]
    for id_, _, _, _, vector in found:
        if len(vector) != dimension * STORED.itemsize:
            raise StorageError(
                f"document {id_!r} has a vector of {len(vector)} bytes; {dimension} float16 expected"
            )
    stored = np.frombuffer(b"".join(vector for *_, vector in found), STORED)
    return Batch(
        documents,
        [metadata for _, _, _, metadata, _ in found],
        [[Span(0, len(document.text))] for document in documents],
        stored.reshape(len(found), dimension).astype(np.float32),
        [analyze(document.text, document.language) for document in documents],
    )
