"""A collection of format version 1 opens as one of the present version, or stays what it was."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from embedsvc.collections import migrations, store
from embedsvc.collections.collection import Collection
from embedsvc.collections.verify import verify
from embedsvc.collections.writer import Writer
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import StorageError
from tests.collections.conftest import DIMENSION, brute_force, documents, random_texts
from tests.collections.processes import die_at, index_folders, run_until_killed, start

# As version 1 made it.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    language TEXT NOT NULL,
    metadata TEXT,
    vector BLOB NOT NULL
);
CREATE INDEX documents_language ON documents (language);
CREATE TABLE removed (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE snapshot (sha256 TEXT NOT NULL, generation INTEGER NOT NULL, rows BLOB NOT NULL);
"""
TEXTS = {f"d{i}": text for i, text in enumerate([*random_texts(50), "unheard"])}
QUERIES = ["w1 w2", "w7", "w100 w200 w3 w4"]


@pytest.fixture
def old(tmp_path: Path, encoder: Encoder) -> Path:
    """A collection of version 1 with a removed row, a saved index and a text that has no vector."""
    path = tmp_path / "c"
    (path / "index").mkdir(parents=True)
    (path / "index" / "manifest.json").write_text("{}")
    (path / "index" / "index-0123.faiss").write_bytes(b"of version 1")
    given = documents(list(TEXTS.values()))
    vectors = encoder.encode(list(TEXTS.values())).astype("<f2")
    rows = [
        (number, d["id"], d["text"], d["language"], json.dumps(d["metadata"]), vector.tobytes())
        for number, (d, vector) in enumerate(zip(given, vectors, strict=True), 2)
    ]
    meta = {
        "format_version": 1,
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dimension": DIMENSION,
        "created": 1e9,
        "generation": 5,
        "pruned": 2,
    }
    with contextlib.closing(sqlite3.connect(path / "documents.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO removed VALUES (1, 4)")
        connection.execute("INSERT INTO snapshot VALUES ('abc', 3, x'00')")
    return path


def equals_old(path: Path, encoder: Encoder) -> None:
    with Collection(path, encoder, create=False) as collection:
        found = {d.id: (d.text, d.language, d.metadata) for d in collection.documents()}
        given = documents(list(TEXTS.values()))
        assert found == {d["id"]: (d["text"], d["language"], d["metadata"]) for d in given}
        for query in QUERIES:
            ids, scores = brute_force(encoder, query, TEXTS, 10)
            hits = collection.search(query)
            assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-3)
            assert {hit.id for hit in hits[:3]} <= set(ids)
        assert {hit.id for hit in collection.search("unheard", mode="lexical")} == {"d50"}
        assert [hit.id for hit in collection.search("w1", filter={"n": 7})] == ["d7"]
        assert collection.info().created == 1e9
        assert verify(collection).problems == []


def test_old_collection_is_the_same_in_the_new_format(old: Path, encoder: Encoder) -> None:
    for _ in range(2):
        equals_old(old, encoder)
    with Collection(old, encoder) as collection:
        assert collection.info().generation > 5
        collection.upsert([{"id": "d7", "text": "w5"}])
        collection.delete(["d8"])
        collection.build_index()
        assert len(index_folders(old)) == 1, "the index of version 1 is still there"
        assert verify(collection).problems == []


POINTS: list[tuple[Any, str, str, int]] = [
    (migrations, "create_tables", "after", 1),
    (Writer, "upsert", "after", 3),
    (store, "migrate", "after", 1),
]


def migrate_and_die(path: Path, model: Path, point: int) -> None:
    migrations._BATCH = 10
    die_at(*POINTS[point])
    Collection(path, load_encoder(model))


@pytest.mark.parametrize("point", range(len(POINTS)))
def test_killed_migration_leaves_the_old_collection(
    old: Path, encoder: Encoder, model_folder: Path, point: int
) -> None:
    run_until_killed(migrate_and_die, old, model_folder, point)
    with contextlib.closing(sqlite3.connect(old / "documents.sqlite")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone() == (1,)
        assert connection.execute("SELECT count(vector) FROM documents").fetchone() == (len(TEXTS),)
    equals_old(old, encoder)


def open_old(path: Path, model: Path) -> None:
    equals_old(path, load_encoder(model))


def test_two_processes_migrate_once(old: Path, encoder: Encoder, model_folder: Path) -> None:
    processes = [start(open_old, old, model_folder) for _ in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    equals_old(old, encoder)


def test_damaged_vector_of_an_old_collection_stops_the_migration(old: Path, encoder: Encoder) -> None:
    with contextlib.closing(sqlite3.connect(old / "documents.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE documents SET vector = x'00' WHERE id = 'd3'")
    with pytest.raises(StorageError, match="document 'd3' has a vector of 1 bytes; 16 float16 expected"):
        Collection(old, encoder)


def test_words_are_made_anew_when_the_analysis_is_another(tmp_path: Path, encoder: Encoder) -> None:
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(documents(["east w1", "north w2"]))
        with collection.store.writing() as writer:
            writer.connection.execute("INSERT INTO lexical (lexical) VALUES ('delete-all')")
            writer.set_meta(analyzer="older")
        assert collection.search("north", mode="lexical") == []
    with Collection(tmp_path / "c", encoder) as collection:
        assert [hit.id for hit in collection.search("north", mode="lexical")] == ["d1"]
        assert verify(collection).problems == []
