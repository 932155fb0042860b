"""Verification names what is damaged, and finds nothing where nothing is."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection
from embedsvc.collections.verify import verify
from embedsvc.encoder import Encoder
from embedsvc.errors import EmbedsvcError
from tests.collections.conftest import documents, random_texts
from tests.collections.processes import filled, vector_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "c"
    filled(path, 60)
    with Collection(path) as collection:
        collection.delete(["d3"])
        collection.upsert([{"id": "late", "text": "w1", "language": "en", "vector": vector_of(1)}])
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Iterator[Path]:
    return Path(shutil.copytree(whole, tmp_path / "c"))


def answers(collection: Collection) -> Any:
    vectors = [vector_of(number * 1000) for number in range(0, 60, 7)]
    return (
        [(d.id, d.text, d.language, d.metadata, list(d.vector)) for d in collection.documents(vectors=True)],
        [result.hits for result in collection.query(vectors=np.stack(vectors))],
        [hit.id for hit in collection.search_vector(vectors[0], filter={"number": {"$gt": 30}})],
        collection.languages(),
    )


def test_whole_collection_has_no_problems(path: Path) -> None:
    with Collection(path) as collection:
        report = verify(collection)
    assert (report.problems, report.ok) == ([], True)
    assert report.checked == {"documents": 60, "passages": 60, "terms": 118, "vectors": 60, "indexed": 59}


@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_flipped_bit_in_the_database_is_reported_or_harmless(path: Path, count: int) -> None:
    with Collection(path) as collection:
        right = answers(collection)
    database = path / "documents.sqlite"
    content = database.read_bytes()
    positions = random.Random(count)
    reported = 0
    for _ in range(count):
        damaged = bytearray(content)
        damaged[positions.randrange(len(content))] ^= 1 << positions.randrange(8)
        for left in path.glob("documents.sqlite-*"):
            left.unlink()
        database.write_bytes(damaged)
        try:
            with Collection(path, create=False) as collection:
                if problems := verify(collection).problems:
                    reported += 1
                    assert all(problems)
                else:
                    assert answers(collection) == right
        except EmbedsvcError:
            reported += 1
    assert reported > count / 20


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE documents SET text = 'w8' WHERE id = 'd7'", "1 documents are damaged: 'd7'"),
        ("UPDATE documents SET language = 'fr' WHERE id = 'd7'", "1 documents are damaged: 'd7'"),
        ("UPDATE documents SET id = 'd07' WHERE id = 'd7'", "1 documents are damaged: 'd07'"),
        ("UPDATE documents SET metadata = '{' WHERE id = 'd7'", "1 documents are damaged: 'd7'"),
        ("UPDATE passages SET stop = 1 WHERE row = 8", "1 passages are damaged: 8"),
        (f"UPDATE passages SET vector = x'{'3c00' * 16}' WHERE row = 8", "1 passages are damaged: 8"),
        ("DELETE FROM passages WHERE row = 8", "1 documents have no passage"),
        ("UPDATE passages SET document = 999 WHERE row = 8", "1 passages belong to no document"),
        ("UPDATE sqlite_sequence SET seq = 3 WHERE name = 'passages'", "the highest row of passages"),
        ("DELETE FROM terms WHERE document = 8", "filters know 116 values of metadata; .* 118"),
        ("UPDATE terms SET value = 7 WHERE document = 9 AND value = 8", "filters know other values"),
        ("UPDATE fields SET name = 'numbes' WHERE name = 'number'", "filters know other values"),
        ("INSERT INTO lexical (lexical) VALUES ('delete-all')", "words are kept of 0 documents"),
        ("DELETE FROM removed", "was made from 60 passages; .* has 59 of them and 0 removed"),
        ("UPDATE snapshot SET sha256 = 'x'", "index: .*damaged, or another index"),
    ],
)
def test_what_is_wrong_is_said(path: Path, sql: str, problem: str) -> None:
    with closing(sqlite3.connect(path / "documents.sqlite", isolation_level=None)) as connection:
        connection.execute(sql)
    with Collection(path) as collection:
        report = verify(collection)
        assert not report.ok
        assert [line for line in report.problems if re.search(problem, line)]
    assert verify_again(path) == report.problems, "verification changed something"


def verify_again(path: Path) -> list[str]:
    with Collection(path) as collection:
        return verify(collection).problems


def test_index_of_other_vectors_is_noticed(tmp_path: Path, encoder: Encoder) -> None:
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(documents(random_texts(30)))
        collection.build_index()
        with collection.store.writing() as writer:
            first, second = (
                writer.connection.execute("SELECT vector FROM passages WHERE row = ?", (row,)).fetchone()[0]
                for row in (1, 2)
            )
            writer.connection.execute("UPDATE passages SET vector = ? WHERE row = 1", (second,))
            writer.connection.execute("UPDATE passages SET vector = ? WHERE row = 2", (first,))
        problems = verify(collection).problems
    assert [line.split(" by")[0] for line in problems] == [
        "2 passages are damaged: 1, 2",
        "index: its vectors differ from the stored ones",
    ]
