"""Collections by name: found, listed, deleted; no name reaches out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

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
