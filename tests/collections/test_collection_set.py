"""Collections by name: found, listed, deleted; no name reaches out of the folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedsvc.collections.collection import Collection
from embedsvc.collections.collection_set import CollectionSet
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError, StorageError


def test_collections_are_made_found_listed_and_deleted(tmp_path: Path, encoder: Encoder) -> None:
    collections = CollectionSet(tmp_path, encoder)
    assert collections.names() == []
    collections.create("b").upsert([{"id": "1", "text": "east"}])
    collections.open("a")
    assert collections.names() == ["a", "b"]
    assert collections.get("b") is collections.open("b")
    assert collections.get("b").count == 1
    assert (tmp_path / "collections" / "b" / "documents.sqlite").is_file()
    collections.delete("b")
    assert collections.names() == ["a"]
    assert [entry.name for entry in (tmp_path / "collections").iterdir()] == ["a"]
    assert collections.create("b").count == 0
    collections.close()


def test_unknown_name_lists_the_known_ones(tmp_path: Path, encoder: Encoder) -> None:
    collections = CollectionSet(tmp_path, encoder)
    with pytest.raises(NotFoundError, match="no collection 'x'; known: none"):
        collections.get("x")
    collections.create("help")
    collections.create("news")
    for call in (collections.get, collections.delete):
        with pytest.raises(NotFoundError, match="no collection 'x'; known: help, news"):
            call("x")
    with pytest.raises(InvalidInputError, match="collection 'help' exists already"):
        collections.create("help")
    collections.close()


def test_collection_made_anew_by_another_process_is_opened_anew(tmp_path: Path, encoder: Encoder) -> None:
    one, two = CollectionSet(tmp_path, encoder), CollectionSet(tmp_path, encoder)
    one.create("c").upsert([{"id": "old", "text": "east"}])
    handle = one.get("c")
    two.delete("c")
    with pytest.raises(NotFoundError):
        one.get("c")
    two.create("c").upsert([{"id": "new", "text": "east"}])
    with handle._store.reading(), pytest.raises(StorageError, match="the collection has been deleted"):
        handle.count  # noqa: B018 - needs a second connection
    assert [hit.id for hit in one.get("c").search("east")] == ["new"]
    with pytest.raises(StorageError, match="the collection is closed"):
        handle.count  # noqa: B018
    one.close()
    two.close()


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/etc", "A", "-a", "_a", "a.b", "ä", "a" * 64, "a\n", None, 3]
)
def test_bad_names_are_refused(tmp_path: Path, encoder: Encoder, name: str) -> None:
    collections = CollectionSet(tmp_path, encoder)
    for call in (collections.create, collections.open, collections.get, collections.delete):
        with pytest.raises(InvalidInputError, match="collection name"):
            call(name)
    assert list(tmp_path.iterdir()) == []


_PATIENCE_S = 10


@contextmanager
def _held(monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[threading.Event]:
    """Let a method of the collection "slow" wait until the block ends; give an event of its beginning."""
    begun, go_on, real = threading.Event(), threading.Event(), getattr(Collection, method)

    def waiting(self: Collection, *args: Any, **options: Any) -> None:
        if (args[0] if method == "__init__" else self.path).name == "slow":
            begun.set()
            assert go_on.wait(_PATIENCE_S)
        real(self, *args, **options)

    monkeypatch.setattr(Collection, method, waiting)
    try:
        yield begun
    finally:
        go_on.set()


@pytest.mark.parametrize(("method", "call"), [("__init__", "get"), ("close", "delete")])
def test_collection_that_opens_or_closes_slowly_holds_up_no_other(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, method: str, call: str
) -> None:
    collections = CollectionSet(tmp_path, encoder)
    collections.create("slow")
    collections.close()
    quick = collections.create("quick")
    if call == "delete":
        collections.get("slow")
    with ThreadPoolExecutor(3) as threads:
        with _held(monkeypatch, method) as begun:
            slow = threads.submit(getattr(collections, call), "slow")
            assert begun.wait(_PATIENCE_S)
            assert threads.submit(collections.get, "quick").result(_PATIENCE_S / 2) is quick
            assert threads.submit(collections.create, "other").result(_PATIENCE_S / 2).count == 0
            assert not slow.done()
        slow.result(_PATIENCE_S)
    collections.close()


def test_threads_that_open_the_same_collection_share_it(tmp_path: Path, encoder: Encoder) -> None:
    collections = CollectionSet(tmp_path, encoder)
    barrier = threading.Barrier(4)

    def opened(_: int) -> Collection:
        barrier.wait()
        return collections.open("c")

    with ThreadPoolExecutor(4) as threads:
        assert len(set(map(id, threads.map(opened, range(4))))) == 1
    collections.close()


def test_creation_that_was_killed_before_its_tables_is_made_good(tmp_path: Path, encoder: Encoder) -> None:
    database = tmp_path / "collections" / "c" / "documents.sqlite"
    database.parent.mkdir(parents=True)
    database.touch()
    collections = CollectionSet(tmp_path, encoder)
    assert collections.create("c").count == 0
    with pytest.raises(InvalidInputError, match="collection 'c' exists already"):
        collections.create("c")
    collections.close()


def test_damaged_collection_is_not_made_anew(tmp_path: Path, encoder: Encoder) -> None:
    database = tmp_path / "collections" / "c" / "documents.sqlite"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database " * 1000)
    with pytest.raises(InvalidInputError, match="collection 'c' exists already"):
        CollectionSet(tmp_path, encoder).create("c")
    assert database.read_bytes() == b"no database " * 1000
