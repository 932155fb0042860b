"""The database: what is acknowledged is synced, the log stays small, processes share a collection."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections import live_index, store, writer
from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.store import Store
from embedsvc.errors import InvalidInputError, StorageError
from tests.collections.processes import (
    BARE,
    LANGUAGES,
    check,
    exit_code,
    filled,
    index_folders,
    is_served_from_disk,
    numbered,
    received,
    run,
    start,
    vector_of,
)


def test_acknowledged_means_synced(tmp_path: Path) -> None:
    filled(tmp_path / "c", 3)
    opened = Store(tmp_path / "c" / "documents.sqlite")
    with opened.writing() as writing, opened.reading() as reading:
        for view in (writing, reading):
            assert view.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert view.number("PRAGMA synchronous") == 2, "2 is FULL"
    opened.close()


def upsert_one(path: Path) -> None:
    with Collection(path) as collection:
        collection.upsert([numbered(77)])
        os.write(2, b"acknowledged")
        os._exit(0)  # without the sync of closing


TRACED = """
import sys
from pathlib import Path
from tests.collections.test_store import upsert_one
upsert_one(Path(sys.argv[1]))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.slow
def test_log_is_synced_before_a_write_is_acknowledged(tmp_path: Path) -> None:
    path, trace = tmp_path / "c", tmp_path / "trace"
    filled(path, 3)
    command = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
    traced = subprocess.run([*command, sys.executable, "-c", TRACED, str(path)], check=False)
    if traced.returncode:
        pytest.skip("strace may not be used here")
    before, after = trace.read_text().split('"acknowledged"')
    assert re.search(r"fd?a?t?a?sync\(\d+<[^>]*documents\.sqlite-wal>\) += 0", before)
    assert "documents.sqlite-wal" not in after


def test_log_does_not_stay_large_after_a_long_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LOG_BYTES", 1 << 20)
    log = tmp_path / "c" / "documents.sqlite-wal"
    large = numbered(100) | {"text": "x" * 900_000}
    with Collection(tmp_path / "c", options=BARE) as collection:
        collection.upsert([numbered(number) for number in range(3)])
        reading = collection.documents()
        assert next(reading).id == "d0"
        for _ in range(20):  # all that is written stays in the log while somebody reads the past
            collection.upsert([large])
        assert log.stat().st_size > 16 << 20
        assert [document.id for document in reading] == ["d1", "d2"], "not a moment of the past"
        for number in (100, 101, 102):
            collection.upsert([numbered(number)])
        assert log.stat().st_size <= 1 << 20
        check(collection, dict.fromkeys([0, 1, 2, 100, 101, 102], 0))


def test_building_an_index_does_not_hold_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = live_index.build_snapshot
    with Collection(tmp_path / "c", options=BARE) as collection:
        collection.upsert([numbered(number) for number in range(50)])

        def build_slowly(*arguments: Any) -> Any:
            with collection.store.connection() as connection:
                busy, pages, merged = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert (busy, pages, merged) == (0, 0, 0), "a reader is in the way"
            return build(*arguments)

        monkeypatch.setattr(live_index, "build_snapshot", build_slowly)
        collection.build_index()
        assert is_served_from_disk(collection)


def test_removals_are_forgotten_though_no_index_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_REMOVALS_KEPT", 20)
    monkeypatch.setattr(writer, "_REMOVALS_SECONDS", 0)
    with Collection(tmp_path / "c", options=BARE) as collection, Collection(tmp_path / "c") as late:
        collection.upsert([numbered(number) for number in range(30)])
        collection.build_index()
        collection.delete(["d2"])
        check(late, _without(2))
        for version in range(1, 100):
            collection.upsert([numbered(7, version)])
        expected = _without(2) | {7: 99}
        with collection.store.reading() as view:
            assert len(view.removed_since(0)) <= 2 + 2 * 20
        check(collection, expected)
        check(late, expected)
    with Collection(tmp_path / "c") as collection:
        check(collection, expected)
        assert is_served_from_disk(collection), "the removals that the index needs were not kept"


def test_many_changes_while_an_index_is_built_do_not_make_it_useless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_REMOVALS_KEPT", 5)
    build = live_index.build_snapshot
    with Collection(tmp_path / "c", options=BARE) as collection:
        collection.upsert([numbered(number) for number in range(30)])

        def build_slowly(*arguments: Any) -> Any:
            for version in range(1, 21):
                collection.upsert([numbered(7, version)])
            collection.delete(["d2"])
            return build(*arguments)

        monkeypatch.setattr(live_index, "build_snapshot", build_slowly)
        collection.build_index()
        assert is_served_from_disk(collection)
        check(collection, _without(2) | {7: 20})


def _without(number: int) -> dict[int, int]:
    return {other: 0 for other in range(30) if other != number}


def test_every_change_is_in_the_log_of_operations(tmp_path: Path) -> None:
    with Collection(tmp_path / "c", options=BARE) as collection:
        collection.upsert([numbered(0), numbered(1)])
        collection.upsert([numbered(1, 1)])
        collection.delete(["d0", "none"])
        assert collection.delete(["none"]) == 0
        found = collection.operations()
        assert [(o.generation, o.kind, o.documents) for o in found] == [
            (3, "delete", 1),
            (2, "upsert", 1),
            (1, "upsert", 2),
        ]
        assert collection.info().generation == 3


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    filled(tmp_path / "c", 1)
    with pytest.raises(InvalidInputError, match="was made with dimension = 16, not 8; options are fixed"):
        Collection(tmp_path / "c", options=CollectionOptions(dimension=8))


def create(path: Path, number: int) -> None:
    with Collection(path, options=BARE) as collection:
        collection.upsert([numbered(number)])


def test_several_processes_may_make_the_same_collection(tmp_path: Path) -> None:
    for attempt in range(3):
        processes = [start(create, tmp_path / f"c{attempt}", number) for number in range(6)]
        assert [exit_code(process) for process in processes] == [0] * 6
        with Collection(tmp_path / f"c{attempt}", create=False) as collection:
            check(collection, dict.fromkeys(range(6), 0))


def write_part(path: Path, part: int, parts: int, batches: int) -> None:
    with Collection(path, options=BARE) as collection:
        for batch in range(batches):
            numbers = range(batch * 20 + part, batch * 20 + 20, parts)
            collection.upsert([numbered(number) for number in numbers])
            for number in numbers:
                assert collection.search_vector(vector_of(number * 1000))[0].id == f"d{number}"
            if batch % 4 == part:
                collection.build_index()
        collection.delete([f"d{part}"])


def follow(path: Path, end: Any) -> None:
    with Collection(path) as collection:
        seen: set[str] = set()
        while not end.poll(0.01):
            now = {document.id for document in collection.documents()}
            assert seen <= now | {"d0", "d1"}, "a document was lost"
            hits = collection.search_vector(vector_of(5), top_k=1000)
            assert seen <= {hit.id for hit in hits} | {"d0", "d1"}
            seen = now
        check(collection, dict.fromkeys(range(2, 300), 0))


def test_two_writers_and_a_reader_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    Collection(path, options=BARE).close()
    ours, theirs = Pipe()
    reader = start(follow, path, theirs)
    writers = [start(write_part, path, part, 2, 15) for part in range(2)]
    assert [exit_code(process) for process in writers] == [0, 0]
    ours.send("end")
    assert exit_code(reader) == 0
    with Collection(path) as collection:
        check(collection, dict.fromkeys(range(2, 300), 0))
        collection.build_index()
        assert len(index_folders(path)) == 1


def hold(path: Path, end: Any) -> None:
    """Have a collection open, with the index of the moment, until told to look anew and then to let go."""
    with Collection(path) as collection:
        for _ in range(2):
            end.send(
                (len(collection.search_vector(vector_of(5), top_k=100)), is_served_from_disk(collection))
            )
            end.recv()
            gc.collect()


def test_folder_goes_when_nobody_has_it_open_any_more(tmp_path: Path) -> None:
    path = tmp_path / "c"
    filled(path, 30)
    (old,) = index_folders(path)
    ours, theirs = Pipe()
    reader = start(hold, path, theirs)
    assert received(ours) == (30, True)
    with Collection(path) as collection:
        for number in (100, 101):
            collection.upsert([numbered(number)])
            collection.build_index()
            folders = index_folders(path)
            assert (old in folders, len(folders)) == (True, 2), "a reader still has the old one open"
        ours.send("look anew")
        assert received(ours) == (32, True), "an index built by one process is used by the other"
        collection.upsert([numbered(102)])
        collection.build_index()
        assert old not in index_folders(path)
        ours.send("let go")
        assert exit_code(reader) == 0
        collection.upsert([numbered(103)])
        collection.build_index()
        assert len(index_folders(path)) == 1


MANY, WIDE = 20_000, 256


def fill_wide(path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((MANY, WIDE)).astype(np.float32)
    with Collection(path, options=CollectionOptions(dimension=WIDE)) as collection:
        for first in range(0, MANY, 4000):
            collection.upsert(
                {"id": f"d{i}", "text": "", "vector": vectors[i], "language": LANGUAGES[i % 3]}
                for i in range(first, first + 4000)
            )
        collection.build_index()


def anonymous_bytes() -> int:
    gc.collect()
    found = re.search(r"^Anonymous: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def read_wide(path: Path, end: Any) -> None:
    queries = np.random.default_rng(1).standard_normal((20, WIDE))
    before = anonymous_bytes()
    with Collection(path) as collection:
        found = collection.query(vectors=queries)
        filtered = [collection.search_vector(query, languages=["sw"]) for query in queries[:5]]
        assert is_served_from_disk(collection)
        end.send((anonymous_bytes() - before, [[(h.id, h.score) for h in r.hits] for r in found], filtered))
        end.recv()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is told by Linux only")
def test_processes_share_one_index_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "c"
    run(fill_wide, path)
    pipes = [Pipe() for _ in range(4)]
    readers = [start(read_wide, path, theirs) for _, theirs in pipes]
    reports = [received(ours) for ours, _ in pipes]
    for ours, _ in pipes:
        ours.send("end")
    assert [exit_code(reader) for reader in readers] == [0] * 4
    used = [report[0] for report in reports]
    assert max(used) < MANY * WIDE * 4 / 2, f"{used} bytes of their own; the vectors have {MANY * WIDE * 4}"
    assert all(report[1:] == reports[0][1:] for report in reports)


def test_replaced_database_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path / "c", 3)
    opened = Store(tmp_path / "c" / "documents.sqlite")
    shutil.rmtree(tmp_path / "c")
    filled(tmp_path / "c", 4)
    assert not opened.is_current()
    with opened.connection(), pytest.raises(StorageError, match="the collection has been deleted"):
        opened.take()
    opened.close()
