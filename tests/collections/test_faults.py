"""Killed at any moment, on a full disk, in a read-only folder: what was acknowledged is there, whole."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

import indexing.shard_folder
from embedsvc.collections import live_index
from embedsvc.collections.collection import Collection
from embedsvc.collections.transfer import backup
from embedsvc.collections.writer import Writer
from embedsvc.errors import StorageError
from tests.collections.processes import (
    BARE,
    check,
    die_at,
    filled,
    index_folders,
    numbered,
    received,
    run,
    run_until_killed,
    start,
)
from tests.server.processes import until

BATCH = 20
NOBODY = 65534


# Killed while writing


def change(collection: Collection, step: int) -> None:
    """Make the change of a step: each is one generation."""
    kind, first = step % 4, step // 4 * BATCH
    if kind == 3:
        collection.delete([f"d{number}" for number in range(first, first + 5)])
    else:
        collection.upsert([numbered(number, kind) for number in range(first, first + BATCH)])


def after_steps(steps: int) -> dict[int, int]:
    """What a collection holds after so many changes."""
    expected: dict[int, int] = {}
    for step in range(steps):
        kind, first = step % 4, step // 4 * BATCH
        for number in range(first, first + (5 if kind == 3 else BATCH)):
            if kind == 3:
                del expected[number]
            else:
                expected[number] = kind
    return expected


def write_on(path: Path, acknowledged: Path) -> None:
    with Collection(path, options=BARE) as collection, acknowledged.open("a") as log:
        for step in range(collection.info().generation, 10_000):
            change(collection, step)
            print(step, file=log, flush=True)
            if step % 7 == 6:
                collection.build_index()


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path, rounds: int) -> None:
    path, log = tmp_path / "c", tmp_path / "log"
    moments = random.Random(rounds)
    log.touch()
    for number in range(rounds):
        begun = len(log.read_text().split())
        process = start(write_on, path, log)
        if number % 2:  # the others may be killed before they write, on a slow machine
            until(lambda: len(log.read_text().split()) >= begun + 7)  # noqa: B023
        time.sleep(moments.uniform(0.05, 0.35))
        process.kill()
        process.join()
        acknowledged = len(log.read_text().split())
        if not path.exists():
            continue
        with Collection(path, options=BARE) as collection:
            steps = collection.info().generation
            assert acknowledged <= steps <= acknowledged + 1
            check(collection, after_steps(steps))
        log.write_text("".join(f"{step}\n" for step in range(steps)))
    assert steps > 3 * rounds, "nothing was written between the kills"
    with Collection(path, options=BARE) as collection:
        collection.upsert([numbered(100_000)])
        collection.build_index()
        check(collection, after_steps(steps) | {100_000: 0})
        assert len(index_folders(path)) == 1


# Killed while an index is built

Point = tuple[Any, str, str, int]
POINTS: list[Point] = [
    (live_index, "build_snapshot", "before", 1),
    (indexing.shard_folder, "save_index", "after", 1),
    (indexing.shard_folder, "_write_array", "after", 2),
    (indexing.shard_folder, "durable_file", "after", 1),
    (live_index, "save_snapshot", "after", 1),
    (Writer, "record_snapshot", "before", 1),
    (Writer, "record_snapshot", "after", 1),
    (live_index, "remove_unused", "before", 1),
    (shutil, "rmtree", "before", 1),
]


def build_and_die(path: Path, point: int) -> None:
    with Collection(path, options=BARE) as collection:
        collection.upsert([numbered(1000)])
        collection.delete(["d0"])
        die_at(*POINTS[point])
        collection.build_index()


@pytest.mark.parametrize("point", range(len(POINTS)), ids=[f"{name}-{when}" for _, name, when, _ in POINTS])
def test_killed_while_an_index_is_built(tmp_path: Path, point: int) -> None:
    path = tmp_path / "c"
    expected = filled(path, 60)
    run_until_killed(build_and_die, path, point)
    del expected[0]
    expected[1000] = 0
    with Collection(path) as collection:
        check(collection, expected)
        collection.upsert([numbered(1001)])
        collection.build_index()
        assert len(index_folders(path)) == 1, "something was left over"
        check(collection, expected | {1001: 0})


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Let a file take all space that is left."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


def test_full_disk_loses_nothing_and_search_goes_on(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, ballast = small_disk / "c", small_disk / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))
    expected: dict[int, int] = {}
    with Collection(path, options=BARE) as collection:
        while True:
            numbers = range(len(expected), len(expected) + 250)
            try:
                collection.upsert([numbered(number) for number in numbers])
            except StorageError as error:
                full = error.message
                break
            expected |= dict.fromkeys(numbers, 0)
        assert re.search("disk is full|disk I/O error", full)
        assert len(expected) > 700
        fill(ballast)
        check(collection, expected)
        collection.build_index()
        assert "could not be saved" in caplog.text
        check(collection, expected)
        assert index_folders(path) == []
        with pytest.raises(StorageError, match=r"disk is full|disk I/O error"):
            collection.upsert([numbered(number, 1) for number in range(500)])
        with pytest.raises(StorageError, match=r"cannot be written: No space left|disk is full"):
            backup(collection, small_disk / "backup")
        assert not list(small_disk.glob("*backup*"))
        check(collection, expected)
        ballast.unlink()
        collection.delete([f"d{number}" for number in range(500, len(expected))])
        expected = dict.fromkeys(range(500), 0)
        collection.build_index()
        collection.upsert([numbered(7, 1)])
        check(collection, expected | {7: 1})
    with Collection(path) as collection:
        check(collection, expected | {7: 1})
        assert len(index_folders(path)) == 1


# A read-only folder


def read_only(path: Path) -> None:
    for entry in [*path.rglob("*"), path]:
        entry.chmod(0o555 if entry.is_dir() else 0o444)


def as_nobody() -> None:
    """Give up being root, who may write everywhere; first import all modules, which may lie out of reach."""
    if os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as folder:
            expected = filled(Path(folder) / "c", 10)
            with Collection(Path(folder) / "c") as collection:
                check(collection, expected)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def use_read_only(path: Path, expected: dict[int, int]) -> None:
    as_nobody()
    with Collection(path) as collection:
        for _ in range(live_index._SEARCHES_BEFORE_BUILD + 2):
            check(collection, expected)
        for action in (
            lambda: collection.upsert([numbered(1)]),
            lambda: collection.delete(["d1"]),
            collection.build_index,
        ):
            with pytest.raises(StorageError, match="the collection is read-only: its folder may not be wri"):
                action()
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        check(collection, expected)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for entry in folder.rglob("*"):
            entry.chmod(0o755)


@pytest.mark.parametrize("folder_only", [False, True])
def test_read_only_collection_is_searched_and_says_so_to_writers(
    open_folder: Path, folder_only: bool
) -> None:
    path = open_folder / "c"
    expected = filled(path, 50)
    read_only(path)
    if folder_only:
        (path / "documents.sqlite").chmod(0o666)
    run(use_read_only, path, expected)


def leave_a_log(path: Path) -> None:
    collection = Collection(path, options=BARE)
    collection.upsert([numbered(number) for number in range(40)])
    os.kill(os.getpid(), signal.SIGKILL)


def test_read_only_collection_with_an_unmerged_log_is_searched_whole(open_folder: Path) -> None:
    path = open_folder / "c"
    run_until_killed(leave_a_log, path)
    assert (path / "documents.sqlite-wal").stat().st_size > 10_000
    read_only(path)
    run(use_read_only, path, dict.fromkeys(range(40), 0))


def open_without_log_index(path: Path) -> None:
    as_nobody()
    with pytest.raises(StorageError, match="holds changes that are not merged yet"):
        Collection(path)


def test_read_only_log_that_cannot_be_read_is_not_overlooked(open_folder: Path) -> None:
    path = open_folder / "c"
    run_until_killed(leave_a_log, path)
    (path / "documents.sqlite-shm").unlink()
    read_only(path)
    run(open_without_log_index, path)
    for entry in [path, *path.rglob("*")]:
        entry.chmod(0o755)
    with Collection(path) as collection:
        check(collection, dict.fromkeys(range(40), 0))


def follow_read_only(path: Path, steps: Any) -> None:
    as_nobody()
    with Collection(path) as collection:
        for expected in iter(steps.recv, None):
            check(collection, expected)
            steps.send("seen")


def test_reader_without_permission_sees_what_others_write(open_folder: Path) -> None:
    path = open_folder / "c"
    expected = filled(path, 30)
    path.chmod(0o755)
    ours, theirs = Pipe()
    process = start(follow_read_only, path, theirs)

    def seen() -> None:
        ours.send(expected)
        assert received(ours) == "seen"

    seen()
    for number in (100, 101):  # the log appears, is merged and goes, twice
        with Collection(path) as collection:
            seen()
            collection.upsert([numbered(number)])
            expected[number] = 0
            seen()
        seen()
    ours.send(None)
    process.join(30)
    assert process.exitcode == 0
