"""Documents from files: values, streaming, and a message with file and line for each bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedsvc.collections.document import Document
from embedsvc.documents import FieldNames, read_documents
from embedsvc.errors import InvalidInputError, NotFoundError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_lines_become_documents_with_line_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "Guten Tag\n\nصباح الخير\r\n")
    expected = [Document("a.txt:1", "Guten Tag"), Document("a.txt:3", "صباح الخير")]
    assert list(read_documents(path)) == expected


def test_json_lines_become_documents_and_other_fields_metadata(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.jsonl",
        '{"id": "x", "text": "eins", "language": "deu", "topic": {"a": [1]}}\n\n'
        '{"id": 7, "text": "two", "lang": "en-US"}\n{"id": "z", "text": "drei", "language": null}\n',
    )
    assert list(read_documents(path)) == [
        Document("x", "eins", "de", {"topic": {"a": [1]}}),
        Document("7", "two", "en"),
        Document("z", "drei"),
    ]


def test_table_columns_are_found_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "lang\tkey\tbody\tnote\nfr\tk1\tbonjour\t\nde\tk2\tTag\tn\n")
    assert list(read_documents(path, FieldNames(id="key", text="body"))) == [
        Document("k1", "bonjour", "fr", {"note": ""}),
        Document("k2", "Tag", "de", {"note": "n"}),
    ]
    other = FieldNames(id="key", text="note", language="lang")
    with pytest.raises(InvalidInputError, match=r"a\.tsv line 2: document\.text is empty"):
        list(read_documents(path, other))


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": "a", "text": "b"}\nnot json\n')
    documents = read_documents(path)
    assert next(documents) == Document("a", "b")
    with pytest.raises(InvalidInputError, match="line 2: not JSON: Expecting value"):
        next(documents)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: unknown kind of file '.csv'; known: .txt, .tsv, .jsonl"),
        (
            "a.jsonl",
            '{"text": "x", "key": 1}',
            "a.jsonl line 1: 'id' is missing; its fields are 'text', 'key'",
        ),
        ("a.jsonl", "{}", "a.jsonl line 1: 'id' is missing; it has no fields"),
        ("a.jsonl", '{"id": "a"}', "a.jsonl line 1: 'text' is missing; its fields are 'id'"),
        (
            "a.jsonl",
            '{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}',
            "a.jsonl line 2: id 'a' is also that of line 1",
        ),
        ("a.jsonl", '{"id": "a", "text": ""}', "a.jsonl line 1: document.text is empty"),
        ("a.jsonl", '{"id": "a", "text": 5}', "a.jsonl line 1: document.text is int, not a string"),
        ("a.jsonl", '{"id": true, "text": "a"}', "a.jsonl line 1: document.id is bool, not a string"),
        (
            "a.jsonl",
            '{"id": "a", "text": "b", "lang": 5}',
            "a.jsonl line 1: document.language: 5 is not a language",
        ),
        (
            "a.jsonl",
            '{"id": "a", "text": "b", "lang": "xx"}',
            "a.jsonl line 1: document.language: 'xx' is not a language",
        ),
        (
            "a.jsonl",
            '{"id": "a", "text": "b", "n": NaN}',
            "a.jsonl line 1: document.metadata cannot be written as JSON",
        ),
        ("a.jsonl", "[1]", "a.jsonl line 1: list found; a JSON object expected"),
        ("a.jsonl", "[" * 100_000, "a.jsonl line 1: not JSON"),
        ("a.jsonl", b'{"id": "\xff"}', "a.jsonl line 1: byte 0xff at position 8 is not UTF-8"),
        ("a.tsv", "id\ttext\na\n", "a.tsv line 2: 1 columns; the header has 2"),
        ("a.tsv", "id\tid\n", "a.tsv line 1: column name 'id' is empty or there twice"),
        ("a.tsv", "id\ttext\na\t \n", "a.tsv line 2: document.text is empty"),
    ],
)
def test_bad_file_is_named_with_line_and_reason(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        list(read_documents(written(tmp_path, name, content)))
    assert message in caught.value.message


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file at .*gone\.jsonl"):
        list(read_documents(tmp_path / "gone.jsonl"))
