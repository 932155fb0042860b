"""The saved index is used when it is good, and never trusted when it is not."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from embedsvc.collections import live_index, snapshots
from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.verify import verify
from embedsvc.encoder import Encoder
from indexing import ShardOptions
from tests.collections.conftest import documents, random_texts
from tests.collections.test_collection import QUERIES, assert_equals_brute_force

TEXTS = {f"d{i}": text for i, text in enumerate(random_texts(150))}


@pytest.fixture
def saved(tmp_path: Path, encoder: Encoder) -> Path:
    """A collection of 150 documents with a saved index, closed."""
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(documents(list(TEXTS.values())))
        collection.build_index()
    return tmp_path / "c"


def opened_from_snapshot(path: Path, encoder: Encoder, texts: dict[str, str]) -> bool:
    """Check the answers of a collection; return whether it began with the saved index."""
    with Collection(path, encoder) as collection:
        with collection._index.current() as (_, state):  # before searches let another be built behind
            is_saved = state.base.is_saved
        assert_equals_brute_force(collection, texts)
        return is_saved


def index_folder(path: Path) -> Path:
    """The one folder of the saved index."""
    (folder,) = (path / "index").iterdir()
    return folder


def test_saved_index_is_used(saved: Path, encoder: Encoder) -> None:
    assert opened_from_snapshot(saved, encoder, TEXTS)


def test_later_changes_are_laid_over_an_older_saved_index(saved: Path, encoder: Encoder) -> None:
    with Collection(saved, encoder) as collection:
        collection.upsert([{"id": "d3", "text": "w1 w2", "language": "fr"}, {"id": "new", "text": "w7"}])
        collection.delete(["d5", "d149"])
    texts = {**TEXTS, "d3": "w1 w2", "new": "w7"}
    del texts["d5"], texts["d149"]
    assert opened_from_snapshot(saved, encoder, texts)


def test_all_documents_deleted_after_saving(saved: Path, encoder: Encoder) -> None:
    with Collection(saved, encoder) as collection:
        collection.delete(list(TEXTS))
        collection.build_index()
        assert collection.search("w1") == []
    with Collection(saved, encoder) as collection:
        assert collection.search("w1") == []
        collection.upsert([{"id": "x", "text": "w1"}])
        assert [hit.id for hit in collection.search("w1")] == ["x"]


def test_index_of_an_empty_collection_can_be_saved(tmp_path: Path, encoder: Encoder) -> None:
    for _ in range(2):
        with Collection(tmp_path / "c", encoder) as collection:
            collection.build_index()
            assert collection.search("w1") == []


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [flip, truncate, empty, Path.unlink]
FILES = [
    "shards.json",
    "rows.npy",
    "documents.npy",
    "debias.npz",
    "exact/manifest.json",
    "exact/index-*.faiss",
    "pool/manifest.json",
    "pool/index-*.faiss",
    "pool/order-*.npy",
    "shard-0/index-*.faiss",
    "shard-0/order-*.npy",
]


@pytest.fixture(scope="module")
def every_file(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """A collection whose saved index has every kind of file, closed."""
    path = tmp_path_factory.mktemp("saved") / "c"
    small = partial(ShardOptions, flat_rows=100, shard_rows=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "ShardOptions", small)
        with Collection(path, encoder, options=CollectionOptions(debias="center")) as collection:
            collection.upsert(documents(list(TEXTS.values()), languages="en en sw"))
            collection.build_index()
    return path


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_set_aside_and_made_again(
    every_file: Path, tmp_path: Path, encoder: Encoder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index.LiveIndex, "_compact_soon", lambda _: None)  # not before it is looked at
    for number, damage in enumerate(DAMAGES):
        path = Path(shutil.copytree(every_file, tmp_path / f"c{number}"))
        with Collection(path, encoder) as collection:
            right = [collection.search(query, top_k=150) for query in QUERIES]
        bad = index_folder(path)
        (file,) = bad.glob(name)
        damage(file)
        with Collection(path, encoder) as collection:
            assert_equals_brute_force(collection, TEXTS)  # no debiasing before there is an index
            with collection._index.current() as (_, state):
                assert not state.base.is_saved, f"{damage.__name__} of {name} was served"
            assert [entry.name for entry in (path / "index").iterdir()] == [f"quarantine-{bad.name}"]
            collection.build_index()
            with collection._index.current() as (_, state):
                assert state.base.is_saved
            assert [collection.search(query, top_k=150) for query in QUERIES] == right
            assert verify(collection).problems == []


def test_index_set_aside_is_made_again_behind_however_small_it_is(saved: Path, encoder: Encoder) -> None:
    bad = index_folder(saved)
    (bad / "rows.npy").unlink()
    with Collection(saved, encoder) as collection:
        collection.search("w1")
        collection._index.wait()
        with collection._index.current() as (_, state):
            assert state.base.is_saved
        assert_equals_brute_force(collection, TEXTS)


def test_shortage_of_descriptors_does_not_condemn_an_index(
    saved: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    good = index_folder(saved)
    with Collection(saved, encoder) as collection, monkeypatch.context() as patch:
        patch.setattr(snapshots, "open_shards", refuse)
        assert_equals_brute_force(collection, TEXTS)
    assert good.is_dir()
    assert opened_from_snapshot(saved, encoder, TEXTS)


def test_lost_index_folder_is_made_again(saved: Path, encoder: Encoder) -> None:
    shutil.rmtree(saved / "index")
    assert not opened_from_snapshot(saved, encoder, TEXTS)
    with Collection(saved, encoder) as collection:
        collection.build_index()
    assert opened_from_snapshot(saved, encoder, TEXTS)


def test_whole_index_of_another_collection_is_not_served(
    saved: Path, tmp_path: Path, encoder: Encoder
) -> None:
    with Collection(tmp_path / "other", encoder) as other:
        other.upsert(documents(random_texts(150, seed=9)))
        other.build_index()
    shutil.rmtree(saved / "index")
    shutil.copytree(tmp_path / "other" / "index", saved / "index")
    assert not opened_from_snapshot(saved, encoder, TEXTS)


@pytest.mark.parametrize("parts", [[""], ["exact"], ["rows.npy", "documents.npy"]])
def test_index_of_another_collection_under_the_right_name_is_not_served(
    saved: Path, tmp_path: Path, encoder: Encoder, parts: list[str]
) -> None:
    """All hashes of the other index are right, and its counts are the same."""
    with Collection(tmp_path / "other", encoder) as other:
        other.upsert(documents(random_texts(150, seed=9)[::-1], languages="sw en en de"))
        other.build_index()
    for part in parts:
        source, target = index_folder(tmp_path / "other") / part, index_folder(saved) / part
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    assert not opened_from_snapshot(saved, encoder, TEXTS)


def test_restored_backup_of_the_database_does_not_meet_a_later_index(
    saved: Path, tmp_path: Path, encoder: Encoder
) -> None:
    backup = tmp_path / "backup.sqlite"
    shutil.copy(saved / "documents.sqlite", backup)
    with Collection(saved, encoder) as collection:
        collection.upsert(documents(random_texts(50, seed=5), first=200))
        collection.build_index()
    shutil.copy(backup, saved / "documents.sqlite")
    texts = dict(TEXTS)
    with Collection(saved, encoder) as collection:  # the row numbers of the lost documents are given again
        more = random_texts(50, seed=6)
        collection.upsert(documents(more, first=300))
        texts |= {f"d{300 + i}": text for i, text in enumerate(more)}
    assert not opened_from_snapshot(saved, encoder, texts)


def test_index_that_cannot_be_saved_does_not_stop_search(tmp_path: Path, encoder: Encoder) -> None:
    with Collection(tmp_path / "c", encoder) as collection:
        (tmp_path / "c" / "index").write_text("a file where the folder should be")
        collection.upsert(documents(list(TEXTS.values())))
        collection.build_index()
        assert_equals_brute_force(collection, TEXTS)


def test_removals_are_forgotten_once_the_saved_index_has_seen_them(saved: Path, encoder: Encoder) -> None:
    with Collection(saved, encoder) as one, Collection(saved, encoder) as two:
        assert_equals_brute_force(two, TEXTS)
        one.delete([f"d{i}" for i in range(100)])
        one.build_index()
        with one.store.reading() as view:
            assert len(view.removed_since(0)) == 0
        assert_equals_brute_force(two, {f"d{i}": TEXTS[f"d{i}"] for i in range(100, 150)})


def test_index_replaced_while_it_is_opened_is_not_taken_for_damaged(
    saved: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = live_index.open_snapshot
    texts = {**TEXTS, "new": "w1"}
    with Collection(saved, encoder) as one, Collection(saved, encoder) as two:
        one.upsert([{"id": "new", "text": "w1"}])

        def open_late(*arguments: Any) -> Any:
            monkeypatch.setattr(live_index, "open_snapshot", original)
            two.upsert([{"id": "newer", "text": "w2"}])
            two.build_index()
            return original(*arguments)

        monkeypatch.setattr(live_index, "open_snapshot", open_late)
        assert_equals_brute_force(one, texts)
        assert "set aside" not in caplog.text
        assert not list((saved / "index").glob("quarantine-*"))
        assert_equals_brute_force(one, texts | {"newer": "w2"})
    assert opened_from_snapshot(saved, encoder, texts | {"newer": "w2"})
