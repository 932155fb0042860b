"""What was acknowledged survives a kill; two processes see each other; broken files are named."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from embedsvc.collections.collection import Collection
from embedsvc.encoder import Encoder
from embedsvc.errors import StorageError
from tests.collections.conftest import documents, random_texts

INGEST = textwrap.dedent("""
    import sys
    from embedsvc.collections.collection import Collection
    from embedsvc.encoder import load_encoder
    collection = Collection(sys.argv[1], load_encoder(sys.argv[2]))
    words = [f"w{i}" for i in range(300)]
    for batch in range(int(sys.argv[3])):
        documents = []
        for i in range(batch * 20, batch * 20 + 20):
            text = f"{words[i % 300]} {words[i * 7 % 300]} {words[i * 13 % 300]}"
            documents.append({"id": f"d{i}", "text": text, "language": "en"})
        collection.upsert(documents)
        print(batch, flush=True)
""")


def text_of(i: int) -> str:
    return f"w{i % 300} w{i * 7 % 300} w{i * 13 % 300}"


def start(path: Path, model: Path, batches: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", INGEST, str(path), str(model), str(batches)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_killed_ingest_keeps_every_acknowledged_document(
    tmp_path: Path, encoder: Encoder, model_folder: Path, acknowledged: int
) -> None:
    process = start(tmp_path / "c", model_folder, 100_000)
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(acknowledged)]
    process.send_signal(signal.SIGKILL)
    seen += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    with Collection(tmp_path / "c", encoder, create=False) as collection:
        assert collection.count % 20 == 0, "a batch was torn"
        assert collection.count >= 20 * len(seen)
        for i in range(20 * len(seen)):
            assert collection.get(f"d{i}").text == text_of(i)
            (hit, *_) = [hit for hit in collection.search(text_of(i), top_k=60) if hit.id == f"d{i}"]
            assert (hit.text, round(hit.score, 3)) == (text_of(i), 1.0)


def test_two_processes_write_and_read_the_same_collection(
    tmp_path: Path, encoder: Encoder, model_folder: Path
) -> None:
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert([{"id": "mine", "text": "east", "language": "en"}])
        assert [hit.id for hit in collection.search("w0 w0 w0")] == ["mine"]
        process = start(tmp_path / "c", model_folder, 20)
        assert process.stdout is not None
        for batch, line in enumerate(process.stdout):
            assert int(line) == batch
            collection.upsert([{"id": f"m{batch}", "text": f"north w{batch}", "language": "en"}])
            newest = 20 * batch + 19
            assert f"d{newest}" in {hit.id for hit in collection.search(text_of(newest), top_k=3)}
        process.stdout.close()
        assert process.wait() == 0
        assert collection.count == 1 + 20 + 20 * 20


def test_file_that_is_no_database_is_named(tmp_path: Path, encoder: Encoder) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "documents.sqlite").write_bytes(b"hello, this is no database at all" * 100)
    with pytest.raises(StorageError, match=r"documents\.sqlite: file is not a database"):
        Collection(folder, encoder)


def test_foreign_database_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    with sqlite3.connect(tmp_path / "documents.sqlite") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    with pytest.raises(StorageError, match="no such table: meta"):
        Collection(tmp_path, encoder)


def test_another_format_version_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    Collection(tmp_path / "c", encoder).close()
    with sqlite3.connect(tmp_path / "c" / "documents.sqlite") as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'format_version'")
    connection.close()
    with pytest.raises(StorageError, match="format version 99; this version reads 2"):
        Collection(tmp_path / "c", encoder)


@pytest.mark.parametrize("with_header", [False, True])
def test_creation_that_was_killed_is_finished(tmp_path: Path, encoder: Encoder, with_header: bool) -> None:
    (tmp_path / "c").mkdir()
    database = tmp_path / "c" / "documents.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        if with_header:
            connection.execute("PRAGMA journal_mode=WAL")
    assert (database.stat().st_size > 0) == with_header
    with Collection(tmp_path / "c", encoder) as collection:
        assert collection.count == 0


def test_full_disk_is_reported_and_nothing_is_half_written(collection: Collection) -> None:
    collection.upsert(documents(["east"]))
    with collection.store.reading() as view:
        pages = view.connection.execute("PRAGMA page_count").fetchone()[0]
        view.connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StorageError, match=r"documents\.sqlite: database or disk is full"):
        collection.upsert(documents(random_texts(2000), first=1))
    assert collection.count == 1
    assert [hit.id for hit in collection.search("east")] == ["d0"]


def test_damaged_vector_is_not_served(collection: Collection) -> None:
    collection.upsert(documents(["east", "north"]))
    with collection.store.writing() as writer:
        writer.connection.execute("UPDATE passages SET vector = x'0000' WHERE row = 2")
    with pytest.raises(StorageError, match="row 2 has a vector of 2 bytes; 16 float16 expected"):
        collection.search("east")


def test_error_inside_a_write_leaves_nothing(collection: Collection) -> None:
    def fail() -> None:
        with collection.store.writing() as writer:
            writer.connection.execute("INSERT INTO removed VALUES (77, 1)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with collection.store.reading() as view:
        assert len(view.removed_since(0)) == 0


def test_folder_below_a_file_is_named(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/c: cannot be made: Not a directory"):
        Collection(tmp_path / "file" / "c", encoder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_named(tmp_path: Path, encoder: Encoder) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot be made: Permission denied"):
            Collection(tmp_path / "c", encoder)
    finally:
        tmp_path.chmod(0o700)
