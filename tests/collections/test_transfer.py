"""A backup is the collection of one moment, whole, or it is refused; an export is the same documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections import transfer
from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.transfer import backed_up_name, backup, export_lines, restore
from embedsvc.collections.verify import verify
from embedsvc.encoder import Encoder
from embedsvc.errors import StorageError
from tests.collections.conftest import documents, random_texts
from tests.collections.processes import (
    BARE,
    check,
    die_at,
    exit_code,
    filled,
    index_folders,
    is_served_from_disk,
    numbered,
    run_until_killed,
    start,
)

QUERIES = ["w1 w2", "w7", "w100 w200 w3 w4"]


def content(collection: Collection) -> list[tuple[Any, ...]]:
    return [
        (d.id, d.text, d.language, d.metadata, None if d.vector is None else d.vector.tolist())
        for d in collection.documents(vectors=True)
    ]


@pytest.mark.parametrize("index", [False, True])
def test_restored_is_what_was_backed_up(tmp_path: Path, encoder: Encoder, index: bool) -> None:
    options = CollectionOptions(debias="center", chunk_tokens=8, chunk_overlap=0)
    with Collection(tmp_path / "c", encoder, options=options) as collection:
        collection.upsert(documents([*random_texts(60), " ".join(random_texts(5))]))
        if index:
            collection.build_index()
        collection.delete(["d3"])
        collection.upsert([{"id": "late", "text": "w1 w2 w1", "language": "fr"}])
        backup(collection, tmp_path / "backup")
        before = content(collection), [collection.search(query, top_k=60) for query in QUERIES]
        collection.delete(["d4"])
    assert backed_up_name(tmp_path / "backup") == "c"
    restore(tmp_path / "backup", tmp_path / "there" / "c2")
    with Collection(tmp_path / "there" / "c2", encoder, create=False) as restored:
        assert (content(restored), [restored.search(query, top_k=60) for query in QUERIES]) == before
        assert restored.options == options
        assert verify(restored).problems == []
        assert is_served_from_disk(restored) == index
        restored.upsert([{"id": "new", "text": "w1"}])
        restored.build_index()
        assert len(index_folders(restored.path)) == 1
    assert not list(tmp_path.rglob(".*")), "a temporary folder was left"


def test_index_lost_or_damaged_is_no_reason_to_have_no_backup(tmp_path: Path) -> None:
    expected = filled(tmp_path / "c", 30)
    shutil.rmtree(tmp_path / "c" / "index")
    with Collection(tmp_path / "c") as collection:
        backup(collection, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "c2")
    with Collection(tmp_path / "c2") as restored:
        check(restored, expected)


def every_file(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)


def test_damaged_backup_is_refused_naming_the_file(tmp_path: Path) -> None:
    filled(tmp_path / "c", 30)
    with Collection(tmp_path / "c") as collection:
        backup(collection, tmp_path / "backup")
    for path in every_file(tmp_path / "backup"):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        for bad in (bytes(damaged), whole[:-1], b"", None):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(StorageError) as caught:
                restore(tmp_path / "backup", tmp_path / "restored")
            assert str(tmp_path / "backup") in caught.value.message
            assert not (tmp_path / "restored").exists()
            path.write_bytes(whole)
    restore(tmp_path / "backup", tmp_path / "restored")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backup_version": 7}, "version 7; this version reads 1"),
        ({"files": {}}, "damaged"),
        ({"files": ["documents.sqlite"]}, "damaged"),
        ({"files": {"documents.sqlite": "x", "../../etc/passwd": "y"}}, "not inside the backup"),
        ({"files": {"documents.sqlite": "x", "/etc/passwd": "y"}}, "not inside the backup"),
    ],
)
def test_manifest_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    filled(tmp_path / "c", 3)
    with Collection(tmp_path / "c") as collection:
        backup(collection, tmp_path / "backup")
    manifest = json.loads((tmp_path / "backup" / "backup.json").read_text())
    (tmp_path / "backup" / "backup.json").write_text(json.dumps(manifest | change))
    with pytest.raises(StorageError, match=message):
        restore(tmp_path / "backup", tmp_path / "restored")


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    expected = filled(tmp_path / "c", 3)
    with Collection(tmp_path / "c") as collection:
        backup(collection, tmp_path / "backup")
        with pytest.raises(StorageError, match="backup: exists already"):
            backup(collection, tmp_path / "backup")
        with pytest.raises(StorageError, match="c: exists already"):
            restore(tmp_path / "backup", tmp_path / "c")
        check(collection, expected)


def write_batches(path: Path) -> None:
    with Collection(path, options=BARE) as collection:
        step = 0
        while True:
            step += 1
            collection.upsert([numbered(number, 1 + step % 900) for number in range(0, 200, 4)])
            if step % 20 == 0:
                collection.build_index()


def test_backup_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "c"
    filled(path, 200)
    writer = start(write_batches, path)
    moments = set()
    try:
        with Collection(path) as collection:
            for number in range(4):
                backup(collection, tmp_path / f"b{number}")
                restore(tmp_path / f"b{number}", tmp_path / f"c{number}")
                with Collection(tmp_path / f"c{number}") as restored:
                    versions = [d.metadata["version"] for d in restored.documents() if d.metadata]
                    expected = {int(d.id[1:]): v for d, v in zip(restored.documents(), versions, strict=True)}
                    assert len({expected[n] for n in range(0, 200, 4)}) == 1, "half of a batch"
                    check(restored, expected)
                    moments.add(restored.info().generation)
    finally:
        writer.kill()
        assert exit_code(writer) == -9
    assert len(moments) > 1, "nothing was written meanwhile"


POINTS: list[tuple[Any, str, str, int]] = [
    (transfer, "_copy_index", "before", 1),
    (shutil, "copytree", "after", 1),
    (transfer, "_sync_all", "after", 1),
]


def backup_and_die(path: Path, target: Path, point: int) -> None:
    die_at(*POINTS[point])
    with Collection(path) as collection:
        backup(collection, target)


@pytest.mark.parametrize("point", range(len(POINTS)))
def test_killed_backup_is_no_backup(tmp_path: Path, point: int) -> None:
    path, target = tmp_path / "c", tmp_path / "backup"
    expected = filled(path, 30)
    run_until_killed(backup_and_die, path, target, point)
    assert not target.exists()
    with Collection(path) as collection:
        check(collection, expected)
        backup(collection, target)
    restore(target, tmp_path / "c2")
    with Collection(tmp_path / "c2") as restored:
        check(restored, expected)


def test_exported_and_indexed_again_is_the_same_collection(tmp_path: Path, encoder: Encoder) -> None:
    given = documents([*random_texts(40), "unheard", 'quote " and \u2028 line', "ünï 日本"])
    given[5]["metadata"] = {"a": [1, None, "ü", 1.5, True], "b": {"c": "d"}}
    given[6].pop("metadata")
    with Collection(tmp_path / "c", encoder) as collection, Collection(tmp_path / "d", encoder) as copy:
        collection.upsert(given)
        collection.upsert([{"id": "image", "text": "", "vector": np.arange(1, 17), "language": "en"}])
        lines = list(export_lines(collection, vectors=True))
        assert all("\n" not in line for line in lines)
        copy.upsert([json.loads(line) for line in lines])
        for one, two in zip(content(copy), content(collection), strict=True):
            assert one[:-1] == two[:-1]
            assert one[-1] == pytest.approx(two[-1], abs=5e-4)  # float16 rounds twice
        for query in QUERIES:
            assert copy.search(query, mode="lexical") == collection.search(query, mode="lexical")
            scores = [hit.score for hit in collection.search(query, top_k=50)]
            assert [hit.score for hit in copy.search(query, top_k=50)] == pytest.approx(scores, abs=1e-3)
        assert len(list(export_lines(collection, languages=["sw"]))) == collection.languages()["sw"]
        (line,) = export_lines(collection, filter={"b.c": "d"})
        assert json.loads(line)["id"] == "d5"
        assert "vector" not in json.loads(line)
