"""Documents from files: values, streaming, and a message with file and line for each bad one."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.document import Document
from embedsvc.documents import FieldNames, read_documents
from embedsvc.errors import InvalidInputError, MissingExtraError, NotFoundError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_lines_become_documents_with_line_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "Guten Tag\n\nصباح الخير\r\n")
    expected = [Document("a.txt:1", "Guten Tag"), Document("a.txt:3", "صباح الخير")]
    assert list(read_documents(path)) == expected


def test_ndjson_is_another_name_of_jsonl(tmp_path: Path) -> None:
    path = written(tmp_path, "a.ndjson", '{"id": "x", "text": "eins"}\n')
    assert list(read_documents(path)) == [Document("x", "eins")]


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
        (
            "a.csv",
            "",
            "a.csv: unknown kind of file '.csv'; known: .txt, .tsv, .jsonl, .ndjson, .parquet, "
            "all but the last also with .gz, .xz, .zst",
        ),
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
        (
            "a.jsonl",
            '{"id": "a", "text": "b", "n": 1, "metadata": {"n": 2}}',
            "a.jsonl line 1: 'n' is a field and also in 'metadata'; give it once",
        ),
        (
            "a.jsonl",
            '{"id": "a", "vector": [1, NaN]}',
            "a.jsonl line 1: document.vector[1] is nan; finite numbers expected (float32)",
        ),
        ("a.jsonl", '{"id": "a", "text": "", "vector": null}', "a.jsonl line 1: document.text is empty"),
        ("a.jsonl", '{"id": "a", "text": " ", "vector": [1]}', "a.jsonl line 1: document.text is empty"),
        ("a.tsv", "id\tvector\na\t[1,\n", "a.tsv line 2: 'vector' is not a JSON array: "),
        ("a.jsonl.gz", gzip.compress(b"{}\n", mtime=0)[:-6], "a.jsonl.gz line 1: 'id' is missing"),
        (
            "a.txt.gz",
            gzip.compress(b"one\n" * 9, mtime=0)[:-6],
            "a.txt.gz after line 9: damaged .gz file: Compr",
        ),
        ("a.txt.gz", b"plain", "a.txt.gz after line 0: damaged .gz file: Not a gzipped file"),
        ("a.txt.xz", b"plain", "a.txt.xz after line 0: damaged .xz file: Input format not supported"),
        ("a.parquet", b"plain", "a.parquet after row 0: not a sound Parquet file"),
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


def test_exported_row_reads_back_as_the_same_document(tmp_path: Path) -> None:
    document = Document("a", "eins", "de", {"topic": "x", "metadata": {"deep": 1}})
    row = {"id": "a", "text": "eins", "language": "de", "metadata": document.metadata}
    path = written(tmp_path, "a.jsonl", json.dumps(row))
    assert list(read_documents(path)) == [document]


def test_loose_fields_and_a_metadata_object_are_merged(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "b", "n": 1, "metadata": {"m": 2}},
        {"id": "b", "text": "b", "n": 1, "metadata": None},
        {"id": "c", "text": "b", "metadata": {}},
        {"id": "d", "text": "b", "metadata": "a word"},
    ]
    path = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    found = [document.metadata for document in read_documents(path)]
    assert found == [{"n": 1, "m": 2}, {"n": 1}, None, {"metadata": "a word"}]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_file_reads_like_the_plain_one(tmp_path: Path, suffix: str, pack: Any) -> None:
    for name, content in [
        ("a.txt", "eins\n\nzwei\n"),
        ("a.tsv", "id\ttext\na\tb\n"),
        ("a.jsonl", '{"id": "a", "text": "b", "n": 1}\n'),
    ]:
        plain = list(read_documents(written(tmp_path, name, content)))
        assert list(read_documents(written(tmp_path, name + suffix, pack(content.encode())))) == plain != []


def test_vectors_are_numbers_or_base64(tmp_path: Path) -> None:
    packed = base64.b64encode(np.array([0.5, -2], "<f4").tobytes()).decode()
    lines = ['{"id": "a", "vector": [0.5, -2]}', json.dumps({"id": "b", "text": "t", "vector": packed})]
    from_lines = list(read_documents(written(tmp_path, "a.jsonl", "\n".join(lines))))
    table = f"id\ttext\tv\na\t\t[0.5, -2]\nb\tt\t{packed}\nc\tt\t\n"
    *from_table, without = read_documents(written(tmp_path, "a.tsv", table), FieldNames(vector="v"))
    for document in [*from_lines, *from_table]:
        assert document.vector is not None
        assert document.vector.dtype == np.float32
        assert document.vector.tolist() == [0.5, -2.0]
        assert (document.text, document.metadata) == ("" if document.id == "a" else "t", None)
    assert without.vector is None
    with pytest.raises(InvalidInputError, match=r"line 1: 'v' is missing; its fields are 'id', 'vector'"):
        list(read_documents(tmp_path / "a.jsonl", FieldNames(text="id", vector="v")))


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_rows_become_documents(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    vectors = [[1.0, 0.0], None, [0.5, 2.0]]
    columns = {
        "id": [1, 2, 3],
        "text": ["eins", "two", None],
        "lang": ["deu", None, "en"],
        "tags": [["a", "b"], [], None],
        "source": [{"page": 3, "on": date(2024, 5, 1)}, None, {"page": 4, "on": None}],
        "counts": pa.array([[("x", 1)], None, None], pa.map_(pa.string(), pa.int64())),
    }
    expected = [
        Document(
            "1",
            "eins",
            "de",
            {"tags": ["a", "b"], "source": {"page": 3, "on": "2024-05-01"}, "counts": {"x": 1}},
        ),
        Document("2", "two", None, {"tags": []}),
        Document("3", "", "en", {"source": {"page": 4, "on": None}}),
    ]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())):
        path = parquet(tmp_path / "a.parquet", columns | {"vector": pa.array(vectors, kind)})
        found = list(read_documents(path))
        assert found == expected
        assert [None if d.vector is None else d.vector.tolist() for d in found] == vectors


def test_metadata_struct_is_the_metadata(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": ["a"], "text": ["b"], "metadata": [{"n": 1}]})
    assert list(read_documents(path)) == [Document("a", "b", None, {"n": 1})]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b"], "text": ["c", None]}, "row 2: document.text is NoneType, not a string"),
        ({"id": ["a", "a"], "text": ["c", "d"]}, "row 2: id 'a' is also that of row 1"),
        ({"id": ["a", "b"], "text": [1.5, 2]}, "row 1: document.text is float, not a string"),
        ({"key": ["a"], "text": ["b"]}, "row 1: 'id' is missing; its fields are 'key', 'text'"),
        (
            {"id": ["a"], "text": ["b"], "raw": [b"\xff"]},
            "row 1: document.metadata cannot be written as JSON: Object of type bytes",
        ),
        (
            {"id": ["a", "b"], "text": ["b", "c"], "vector": [[1.0, 2.0], [1.0, None]]},
            "row 2: document.vector[1] is nan; finite numbers expected",
        ),
        (
            {"id": ["a"], "text": ["b"], "vector": [["x"]]},
            "row 1: document.vector[0] is str, not a number",
        ),
        ({"id": ["a"], "text": ["b"], "vector": [1.5]}, "row 1: document.vector is float; a list of numbers"),
    ],
)
def test_bad_parquet_row_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(InvalidInputError) as caught:
        list(read_documents(path))
    assert f"a.parquet {message}" in caught.value.message


def test_parquet_is_read_in_bounded_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    texts = [f"{number} " + "x" * 2_000 for number in range(10_000)]
    path = parquet(tmp_path / "a.parquet", {"id": range(len(texts)), "text": texts}, compression="none")
    before = pa.total_allocated_bytes()
    documents = read_documents(path)
    for _ in range(3_000):
        next(documents)
    assert pa.total_allocated_bytes() - before < path.stat().st_size / 2  # though it is one row group


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"reading a Parquet file needs the \[parquet\] extra"):
        list(read_documents(written(tmp_path, "a.parquet", b"")))
