"""The saved index is used when it is good, and never trusted when it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedsvc.collections import live_index
from embedsvc.collections.collection import Collection
from embedsvc.encoder import Encoder
from tests.collections.conftest import documents, random_texts
from tests.collections.test_collection import assert_equals_brute_force

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
    found: list[object] = []
    original = live_index.LiveIndex._saved_base
    with pytest.MonkeyPatch.context() as patch, Collection(path, encoder) as collection:
        patch.setattr(
            live_index.LiveIndex, "_saved_base", lambda *args: found.append(original(*args)) or found[-1]
        )
        assert_equals_brute_force(collection, texts)
    assert len(found) == 1
    return found[0] is not None


def faiss_file(path: Path) -> Path:
    return next((path / "index").glob("index-*.faiss"))


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


def test_flipped_bit_is_noticed(saved: Path, encoder: Encoder) -> None:
    file = faiss_file(saved)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)
    assert not opened_from_snapshot(saved, encoder, TEXTS)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_truncated_index_is_noticed(saved: Path, encoder: Encoder, keep: int) -> None:
    file = faiss_file(saved)
    file.write_bytes(file.read_bytes()[:keep])
    assert not opened_from_snapshot(saved, encoder, TEXTS)


def test_damaged_manifest_is_noticed(saved: Path, encoder: Encoder) -> None:
    (saved / "index" / "manifest.json").write_text("{")
    assert not opened_from_snapshot(saved, encoder, TEXTS)


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
        with one._store.reading() as view:
            assert len(view.removed_since(0)) == 0
        assert_equals_brute_force(two, {f"d{i}": TEXTS[f"d{i}"] for i in range(100, 150)})
