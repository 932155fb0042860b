"""A store gives back what went in, and is refused when a byte of it is not what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedsvc.errors import StorageError
from embedsvc.mining.ingest import ingest
from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.records import Origin, PairSide
from embedsvc.mining.sentence_store import FILES, SentenceStore, open_sentence_store

OPTIONS = IngestOptions(filters=())


@pytest.fixture
def store(tmp_path: Path) -> SentenceStore:
    (tmp_path / "a.tsv").write_text(
        "id\ttext\tdocument\nu1\teins\tд1\nu2\tzwei  drei\tд1\n\teins\tд2\n", encoding="utf-8"
    )
    (tmp_path / "b.txt").write_text("zwei\u00a0drei\n\n\U0001f600 e\u0301\n", encoding="utf-8")
    return ingest([tmp_path / "a.tsv", tmp_path / "b.txt"], tmp_path / "store", OPTIONS)


def test_rows_are_distinct_sentences_in_order_of_first_occurrence(store: SentenceStore) -> None:
    assert len(store) == 3
    assert store.texts(0, 3) == ["eins", "zwei drei", "😀 é"]
    assert [store.text(row) for row in range(3)] == store.texts(0, 3)
    assert (store.texts(1, 2), store.texts(2, 2)) == (["zwei drei"], [])


def test_every_place_of_a_sentence_is_kept(store: SentenceStore) -> None:
    origins = (Origin("a.tsv", 2, "u1", "д1"), Origin("a.tsv", 4, "2", "д2"))
    assert store.side(0) == PairSide("u1", "eins", 2, "a.tsv", "д1", origins)
    origins = (Origin("a.tsv", 3, "u2", "д1"), Origin("b.txt", 1, "3", None))
    assert store.side(1) == PairSide("u2", "zwei drei", 3, "a.tsv", "д1", origins)
    assert store.side(2) == PairSide("5", "😀 é", 3, "b.txt", None, (Origin("b.txt", 3, "5"),))
    assert store.first_records().tolist() == [0, 1, 5]


def test_a_sentence_is_found_however_it_is_written(store: SentenceStore) -> None:
    assert store.row_of("zwei drei") == 1
    assert store.row_of(" zwei\tdrei\n") == 1
    assert store.row_of("😀 e\u0301") == 2
    assert store.row_of("vier") is None
    assert store.row_of("\ud800") is None


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 4), (2, 1), (3, 4)])
def test_rows_that_are_not_there_are_named(store: SentenceStore, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=rf"rows {start}:{stop} of 3 sentences"):
        store.texts(start, stop)


def test_reopened_store_is_the_same(store: SentenceStore) -> None:
    again = open_sentence_store(store.folder)
    assert [again.side(row) for row in range(3)] == [store.side(row) for row in range(3)]
    assert (again.report, again.sha256) == (store.report, store.sha256)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(store: SentenceStore, name: str) -> None:
    path = store.folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StorageError, match=f"{name}: damaged; its sha256 is not the one in the manifest"):
        open_sentence_store(store.folder)
    path.write_bytes(content[:-1])
    with pytest.raises(StorageError, match=rf"{name} has {len(content) - 1} bytes; the manifest says"):
        open_sentence_store(store.folder, verify=False)
    path.unlink()
    with pytest.raises(StorageError, match=f"{name} is missing"):
        open_sentence_store(store.folder, verify=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no finished sentence store: manifest.json is missing"),
        ("{", "manifest.json: damaged: Expecting property name"),
        ("[]", "manifest.json: damaged: list indices"),
        ('{"format_version": 99}', "manifest.json: format version 99; this program reads 1"),
        ('{"format_version": 1}', "manifest.json: damaged: 'files'"),
    ],
)
def test_a_bad_manifest_is_refused(store: SentenceStore, content: str | None, message: str) -> None:
    path = store.folder / "manifest.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(StorageError) as caught:
        open_sentence_store(store.folder)
    assert message in caught.value.message


def test_the_texts_are_a_file_of_lines_and_their_hash_is_its(store: SentenceStore) -> None:
    assert (store.folder / "texts.txt").read_text(encoding="utf-8") == "eins\nzwei drei\n😀 é\n"
    manifest = json.loads((store.folder / "manifest.json").read_bytes())
    assert store.sha256 == manifest["files"]["texts.txt"]["sha256"]


def test_opening_reads_nothing_into_memory(store: SentenceStore) -> None:
    for array in (store._ends, store._origins, store._origin_ends, store._keys, store._key_rows):
        assert isinstance(array, np.memmap)
