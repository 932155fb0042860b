"""Every kind of file gives its sentences with their places, or an error that names one."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError
from embedsvc.mining.ingest_options import IngestOptions, checked_options
from embedsvc.mining.readers import read_records
from embedsvc.mining.records import Record

PLAIN = IngestOptions()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def records(path: Path, options: IngestOptions = PLAIN) -> list[Record]:
    return list(read_records(path, options, None))


@pytest.mark.parametrize("name", ["a.txt", "corpus.de", "corpus.zho_Hans", "corpus", "a.TXT"])
def test_lines_are_sentences_and_keep_their_numbers(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, "Guten Tag\n\n a\tb\fc\u2028d\r\n")
    assert records(path) == [Record(1, "Guten Tag"), Record(2, ""), Record(3, " a\tb\fc\u2028d")]


def test_table_fields_are_found_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'document\ttext\tid\nd1\t"eins\t7\n\tzwei\t\n')
    assert records(path) == [Record(2, '"eins', "7", "d1"), Record(3, "zwei")]
    other = IngestOptions(text_field="id", id_field="text", document_field="document")
    assert records(path, other)[0] == Record(2, "7", '"eins', "d1")


def test_table_without_a_header_has_the_columns_given(tmp_path: Path) -> None:
    path = written(tmp_path, "de-en.de.tsv", "de-000000001\teins\nde-000000002\tzwei\n")
    options = IngestOptions(columns=("id", "text"))
    assert records(path, options) == [Record(1, "eins", "de-000000001"), Record(2, "zwei", "de-000000002")]


def test_json_lines_may_have_numbers_as_ids(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "eins", "id": 7, "document": "d", "other": [1]},
        {"text": "zwei\nlines", "id": None},
    ]
    content = "\n".join(map(json.dumps, rows))
    for name in ("a.jsonl", "a.ndjson"):
        found = records(written(tmp_path, name, content))
        assert found == [Record(1, "eins", "7", "d"), Record(2, "zwei\nlines")]


def test_parquet_rows_are_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    columns = {"id": [5, 6], "text": ["eins", ""], "document": ["d", None], "vector": [[1.0], [2.0]]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == [Record(1, "eins", "5", "d"), Record(2, "", "6")]
    with pytest.raises(
        InvalidInputError, match="row 1: 'body' is missing; the fields are 'id', 'text', 'doc"
    ):
        records(tmp_path / "a.parquet", IngestOptions(text_field="body"))


TMX = """<?xml version="1.0"?><tmx version="1.4"><header/><body><tu tuid="u1">
<tuv xml:lang="de-AT"><seg>Guten Tag</seg></tuv><tuv xml:lang="en"><seg>Hello</seg></tuv></tu></body></tmx>"""
XLIFF = """<xliff version="1.2"><file original="f" source-language="de" target-language="en"><body>
<trans-unit id="u1"><source>Guten Tag</source><target>Hello</target></trans-unit></body></file></xliff>"""


@pytest.mark.parametrize(("name", "content"), [("a.tmx", TMX), ("a.xlf", XLIFF), ("a.xliff", XLIFF)])
def test_of_a_translation_memory_one_language_is_read(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content)
    for language, text in (("deu", "Guten Tag"), ("en-US", "Hello")):
        found = records(path, checked_options(IngestOptions(language=language)))
        assert [(record.text, record.id) for record in found] == [(text, "u1")]
    with pytest.raises(InvalidInputError, match="holds several languages; the option language says which"):
        records(path)


def test_packed_files_and_a_kind_against_the_name(tmp_path: Path) -> None:
    packed = written(tmp_path, "a.jsonl.gz", gzip.compress(b'{"text": "x"}'))
    assert records(packed) == [Record(1, "x")]
    plain = written(tmp_path, "a.clean", "eins\n")
    assert records(plain, IngestOptions(kind="txt")) == [Record(1, "eins")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: unknown kind of file '.csv'; known: .txt, .tsv, .jsonl, .ndjson, .parquet,"),
        ("a.docx", "", "a.docx: unknown kind of file '.docx'"),
        ("a.txt", "eins\rzwei\r", "a.txt: its lines end with carriage returns (classic Mac OS)"),
        ("a.txt", b"a\nb\0\n", "a.txt line 2: a NUL byte"),
        ("a.txt", b"a\nb\xed\xa0\x80\n", "a.txt line 2: byte 0xed at position 1 is not UTF-8"),
        ("a.tsv", "id\tsentence\n1\tx\n", "a.tsv line 2: 'text' is missing; the fields are 'id', 'sentence'"),
        ("a.tsv", "text\tid\nx\n", "a.tsv line 2: 1 columns; the header has 2"),
        ("a.jsonl", '{"text": null}', "a.jsonl line 1: 'text' is NoneType, not a string"),
        ("a.jsonl", '{"text": 5}', "a.jsonl line 1: 'text' is int, not a string"),
        ("a.jsonl", '{"text": "x", "id": 1.5}', "a.jsonl line 1: 'id' is float, not a string"),
        ("a.jsonl", '{"text": "ab\\u0000"}', "a.jsonl line 1: 'text' has a NUL character at position 2"),
        (
            "a.jsonl",
            '\n{"text": "a\\ud83d"}',
            "a.jsonl line 2: 'text' has half of a surrogate pair ('\\ud83d') at position 1",
        ),
        (
            "a.jsonl",
            '{"text": "x", "document": "\\udc00"}',
            "line 1: 'document' has half of a surrogate pair",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        records(written(tmp_path, name, content))
    assert message in caught.value.message


def test_columns_of_a_table_without_a_header_are_all_needed(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "1\teins\n2\n")
    with pytest.raises(InvalidInputError, match=r"line 2: 1 columns; expected are 2"):
        records(path, IngestOptions(columns=("id", "text")))
    with pytest.raises(InvalidInputError, match="columns id, body do not have the text field 'text'"):
        checked_options(IngestOptions(columns=("id", "body")))


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    assert records(written(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00"}'))[0].text == "😀"


def test_a_line_may_be_long_up_to_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "x" * 10_000_000)
    assert len(records(path)[0].text) == 10_000_000
    with pytest.raises(InvalidInputError, match="line 1 has more than 1,000,000 bytes"):
        records(path, replace(PLAIN, max_line_bytes=1_000_000))


CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\n\r\ufeff")
    | st.sampled_from(' \f\v\x85\u2028"')
)


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS.filter(bool)), max_size=6))
def test_cells_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    expected = [(text, id_) for text, id_ in rows]
    table = written(folder, "cells.tsv", "text\tid\n" + "".join(f"{text}\t{id_}\r\n" for text, id_ in rows))
    lines = written(folder, "cells.jsonl", "".join(json.dumps({"text": t, "id": i}) + "\n" for t, i in rows))
    assert [(record.text, record.id) for record in records(table)] == expected
    assert [(record.text, record.id) for record in records(lines)] == expected


def test_a_tab_in_the_first_line_of_a_text_is_asked_about(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "id-1\teins\nzwei\tdrei\n")
    with pytest.raises(InvalidInputError, match="line 1 has a tab: for a table give kind tsv"):
        records(path)
    assert records(path, IngestOptions(kind="txt"))[0] == Record(1, "id-1\teins")
    assert records(path, IngestOptions(kind="tsv", columns=("id", "text")))[0] == Record(1, "eins", "id-1")
    assert len(records(written(tmp_path, "b.txt", "\teins\nzwei\tdrei\n"))) == 2  # indented
