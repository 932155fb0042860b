"""Every bad document is named by its position, and nothing of its batch is written."""

from __future__ import annotations

from typing import Any

import pytest

from embedsvc.collections.collection import Collection, Document
from embedsvc.errors import InvalidInputError, TextTooLongError

GOOD = {"id": "a", "text": "east"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": "", "text": "x"}, "documents[1].id is empty"),
        ({"id": " ", "text": "x"}, "documents[1].id is empty"),
        ({"id": 7, "text": "x"}, "documents[1].id is int, not a string"),
        ({"id": "b" * 513, "text": "x"}, "documents[1].id has 513 characters; the limit is 512"),
        ({"id": "b", "text": ""}, "documents[1].text is empty"),
        ({"id": "b", "text": None}, "documents[1].text is NoneType, not a string"),
        (
            {"id": "b", "text": "x" * 1_000_001},
            "documents[1].text has 1000001 characters; the limit is 1000000",
        ),
        ({"id": "b", "text": "a\ud800"}, "documents[1].text holds a lone surrogate at character 1"),
        ({"id": "b\0", "text": "x"}, "documents[1].id holds a NUL at character 1"),
        ({"text": "x"}, "documents[1] has no 'id'"),
        ({"id": "b"}, "documents[1] has no 'text'"),
        ({"id": "b", "text": "x", "txt": 1}, "documents[1] has an unknown field 'txt'"),
        ("text", "documents[1] is str, not a document"),
        ({"id": "b", "text": "x", "language": "xx"}, "documents[1].language: 'xx' is not a language code"),
        ({"id": "b", "text": "x", "language": ""}, "documents[1].language: '' is not a language code"),
        ({"id": "b", "text": "x", "metadata": {"a": {1}}}, "documents[1].metadata cannot be written as JSON"),
        (
            {"id": "b", "text": "x", "metadata": {"a": float("nan")}},
            "documents[1].metadata cannot be written",
        ),
        ({"id": "b", "text": "x", "metadata": {"a": "\ud800"}}, "documents[1].metadata cannot be written"),
        ({"id": "b", "text": "x", "metadata": [1]}, "documents[1].metadata must be an object"),
        ({"id": "b", "text": "x", "metadata": {1: 2}}, "documents[1].metadata must be an object"),
        ({"id": "b", "text": "x", "metadata": {"a": "ü" * 32768}}, "documents[1].metadata has 65545 bytes"),
        (Document("a", "again"), "documents[0] and documents[1] have the same id 'a'"),
    ],
)
def test_bad_document_is_named_and_nothing_is_written(collection: Collection, bad: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        collection.upsert([GOOD, bad])
    assert message in caught.value.message
    assert collection.count == 0


def test_text_that_the_model_refuses_is_named_by_its_position(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer texts are split beforehand, so that the limit is lowered behind the splitter's back."""
    collection.upsert([GOOD])
    monkeypatch.setattr(collection.encoder.runtime, "max_tokens", 3)
    with pytest.raises(TextTooLongError, match=r"^documents\[1\] has 4 tokens; the limit is 3"):
        collection.upsert([{"id": "c", "text": "east"}, {"id": "b", "text": "w1 w2 w3 w4"}])
    assert collection.count == 1


def test_largest_metadata_is_accepted_and_returned(collection: Collection) -> None:
    metadata = {"a": "x" * (64 * 1024 - len('{"a": ""}'))}
    collection.upsert([{**GOOD, "metadata": metadata}])
    assert collection.get("a").metadata == metadata


@pytest.mark.parametrize("bad", ["text", {"id": "a", "text": "b"}, Document("a", "b")])
def test_single_document_instead_of_a_list_is_refused(collection: Collection, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a list of documents"):
        collection.upsert(bad)


def test_ids_must_be_a_list_of_strings(collection: Collection) -> None:
    with pytest.raises(InvalidInputError, match="ids must be a list"):
        collection.delete("a")
    with pytest.raises(InvalidInputError, match=r"ids\[1\] is int"):
        collection.delete(["a", 1])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match=r"ids\[0\] holds a lone surrogate"):
        collection.get("\ud800")


@pytest.mark.parametrize("id_", ["😀", "a'b\"c\\", "\n\t", "%_", "عربي", "\u2028", "7", "null", "a/b?c#d"])
def test_any_text_may_be_an_id(collection: Collection, id_: str) -> None:
    id_ = f"{id_}x"
    assert collection.upsert([{"id": id_, "text": "east"}]).inserted == 1
    assert collection.upsert([{"id": id_, "text": "north"}]).updated == 1
    assert (collection.get(id_).text, collection.count) == ("north", 1)
    assert collection.search("north")[0].id == id_
    assert collection.delete([id_]) == 1


def test_no_documents_change_nothing(collection: Collection) -> None:
    result = collection.upsert([])
    assert (result.inserted, result.updated, collection.info().generation) == (0, 0, 0)
