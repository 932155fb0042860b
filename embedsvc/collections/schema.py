"""The tables of a collection.

    meta        format version, model, options, generation (the number of changes so far), …
    documents   row, id, language, metadata (JSON), text, crc
    passages    row, document, start, stop, language, vector, crc: what is searched by meaning; most
                documents have one passage, their whole text
    tokens      the vectors of a passage's tokens, where the collection keeps them
    lexical     the words of each document (FTS5, without the text itself)
    fields      the names of metadata fields
    terms       which documents have which value in which field
    removed     passages that are gone, until the saved index no longer holds them
    snapshot    the one saved index that may be used
    operations  the log: one row per change

A row number is never used twice and a row never changes: an update deletes the old rows and inserts new
ones. Whoever has seen the passages up to row r, and the removals up to generation g, therefore knows what
is new (rows above r) and what is gone (removals above g). Documents and passages carry a CRC-32 of their
values, as SQLite does not notice a bit that flips in them.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

from embedsvc.collections.lexical import ANALYZER, TOKENIZE
from embedsvc.collections.options import CollectionOptions

FORMAT_VERSION = 2
PAGE_BYTES = 8192  # a vector of 384 dimensions takes 768 of them

_PASSAGES = """
CREATE TABLE {name} (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    language TEXT NOT NULL,
    vector BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE INDEX {name}_document ON {name} (document);
"""
_TOKENS = "CREATE TABLE {name} (passage INTEGER PRIMARY KEY, vectors BLOB NOT NULL);\n"
# The settings let segments grow larger before they are merged: a fifth less work for each document.
_LEXICAL = f"""
CREATE VIRTUAL TABLE lexical USING fts5(words, content='', tokenize={TOKENIZE!r});
INSERT INTO lexical (lexical, rank) VALUES ('automerge', 16);
INSERT INTO lexical (lexical, rank) VALUES ('crisismerge', 64);
INSERT INTO lexical (lexical, rank) VALUES ('pgsz', 8000);
CREATE VIRTUAL TABLE lexical_terms USING fts5vocab (lexical, 'row');
"""
_TABLES = """
CREATE TABLE documents (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    language TEXT NOT NULL,
    metadata TEXT,
    text TEXT NOT NULL,
    crc INTEGER NOT NULL
);
CREATE INDEX documents_language ON documents (language);
CREATE TABLE fields (field INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE terms (
    field INTEGER NOT NULL,
    kind TEXT NOT NULL,
    value NOT NULL,
    document INTEGER NOT NULL,
    PRIMARY KEY (field, kind, value, document)
) WITHOUT ROWID;
CREATE TABLE removed (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX removed_generation ON removed (generation);
CREATE TABLE snapshot (
    folder TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    generation INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    passages INTEGER NOT NULL
);
CREATE TABLE operations (
    generation INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    documents INTEGER NOT NULL,
    at REAL NOT NULL
);
"""
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;\n"


@dataclass(frozen=True)
class Identity:
    """Whose vectors a collection holds; a collection without a model has empty names.

    ``epoch`` counts how often all vectors were replaced.
    """

    model: str
    fingerprint: str
    dimension: int
    epoch: int = 0


def create_tables(connection: sqlite3.Connection, identity: Identity, options: CollectionOptions) -> None:
    """Make the tables of a new collection within the caller's transaction."""
    run_all(connection, _META + _TABLES + _LEXICAL + _PASSAGES.format(name="passages"))
    run_all(connection, _TOKENS.format(name="tokens"))
    values = {
        "format_version": FORMAT_VERSION,
        "analyzer": ANALYZER,
        "options": json.dumps(asdict(options)),
        "created": time.time(),
        "generation": 0,
        "pruned": 0,
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", (values | asdict(identity)).items())


def create_passages(connection: sqlite3.Connection, name: str, tokens: str) -> None:
    """Make a second pair of tables for passages and their token vectors."""
    run_all(connection, _PASSAGES.format(name=name) + _TOKENS.format(name=tokens))


def create_lexical(connection: sqlite3.Connection) -> None:
    """Make the table of words anew, empty."""
    for table in ("lexical_terms", "lexical"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    run_all(connection, _LEXICAL)


def set_meta(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write values of the table meta."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def document_crc(row: int, id_: str, language: str, metadata: str | None, text: str) -> int:
    """Return the checksum of a document's values."""
    return crc32(repr((row, id_, language, metadata, text)).encode())


def passage_crc(row: int, owner: tuple[int, int, int, str], vector: bytes) -> int:
    """Return the checksum of a passage's values; ``owner`` is document, start, stop and language."""
    return crc32(vector, crc32(repr((row, *owner)).encode()))


def run_all(connection: sqlite3.Connection, statements: str) -> None:
    """Run several statements; unlike `executescript` it ends no transaction."""
    for statement in filter(str.strip, statements.split(";\n")):
        connection.execute(statement)
