"""The saved index is used when it is good, and never trusted when it is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from embedsvc.collections import snapshots
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
    """Check the answers of a collection; return whether they came from the saved index."""
    with Collection(path, encoder) as collection:
        assert_equals_brute_force(collection, texts)
        with collection._index.current() as (_, state):
            return state.base.is_saved


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
    every_file: Path, tmp_path: Path, encoder: Encoder, name: str
) -> None:
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
