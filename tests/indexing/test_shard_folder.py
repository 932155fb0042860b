"""A sharded index comes back from its folder as it was saved, and no damage is served."""

import json
import threading

import numpy as np
import pytest

from indexing import (
    Allowed,
    Hnsw,
    IndexFileError,
    ShardedIndex,
    ShardOptions,
    open_shards,
    save_shards,
    saved_recall,
)
from tests.indexing.indexing_reference import rows_with_languages

LABELS = np.array(["en", "de", "sw", "yo/ü"])
SMALL = ShardOptions(flat_rows=500, shard_rows=300, graph=Hnsw(m=8, ef_construction=40, storage="sq8"))


@pytest.fixture(scope="module")
def index():
    vectors, languages = rows_with_languages(900, dimension=16)
    order = np.argsort(LABELS[languages], kind="stable")
    return ShardedIndex.build(vectors[order], LABELS[languages][order], SMALL)


@pytest.fixture
def saved(index, tmp_path):
    rows = np.arange(900) * 3
    sha256 = save_shards(
        index,
        tmp_path / "new" / "index",
        arrays={"rows": rows},
        files={"note.txt": lambda path: path.write_text("hello")},
        extra={"generation": 7},
        model="abc",
    )
    return tmp_path / "new" / "index", sha256


def test_opened_answers_as_saved(index, saved):
    folder, sha256 = saved
    opened = open_shards(folder, sha256=sha256)
    queries, _ = rows_with_languages(30, dimension=16, seed=1)
    mask = np.random.default_rng(0).random(900) < 0.4
    for groups in (None, ["en"], ["de", "yo/ü"], ["sw"], ["fr"]):
        for allowed in (None, Allowed(mask)):
            one = index.search(queries, 7, groups=groups, allowed=allowed)
            two = opened.index.search(queries, 7, groups=groups, allowed=allowed)
            np.testing.assert_array_equal(one.rows, two.rows)
            np.testing.assert_array_equal(one.scores, two.scores)
            assert one.plan == two.plan
    assert opened.index.groups == index.groups
    assert opened.index.calibrations == index.calibrations
    assert opened.index.recall == index.recall
    assert set(opened.index.graphs) == set(index.graphs) == {"en"}
    np.testing.assert_array_equal(opened.arrays["rows"], np.arange(900) * 3)
    assert opened.files["note.txt"].read_text() == "hello"
    assert opened.extra == {"generation": 7}
    np.testing.assert_array_equal(opened.index.vectors, index.vectors)


def test_recall_is_read_from_the_manifest_alone(index, saved):
    folder, sha256 = saved
    for entry in folder.rglob("*"):
        if entry.is_file() and entry != folder / "shards.json":
            entry.unlink()
    assert index.recall is not None
    assert saved_recall(folder, sha256=sha256) == saved_recall(folder) == index.recall
    with pytest.raises(IndexFileError, match="damaged, or another index"):
        saved_recall(folder, sha256="0" * 64)
    manifest = json.loads((folder / "shards.json").read_text())
    for wrong in (None, {"*": {"x": 1}}, []):
        (folder / "shards.json").write_text(json.dumps(manifest | {"calibrations": wrong}))
        with pytest.raises(IndexFileError, match="damaged"):
            saved_recall(folder)
    (folder / "shards.json").write_text(json.dumps(manifest | {"calibrations": {}}))
    assert saved_recall(folder) is None


def test_empty_and_flat_pools_come_back(tmp_path):
    vectors, _ = rows_with_languages(20, dimension=16)
    for count in (0, 20):
        made = ShardedIndex.build(vectors[:count], ["en"] * count)
        opened = open_shards(tmp_path / str(count), sha256=save_shards(made, tmp_path / str(count))).index
        assert (opened.count, opened.dimension, opened.pool, opened.recall) == (count, 16, None, None)
        assert opened.search(vectors[:2], 3).rows[:, 0].tolist() == ([0, 1] if count else [-1, -1])


def test_any_changed_byte_is_noticed(saved):
    folder, sha256 = saved
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) >= 9
    for path in files:
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                open_shards(folder, sha256=sha256)
            except IndexFileError:
                pass
            else:
                pytest.fail(f"{path.relative_to(folder)}: byte {place} of {len(content)} changed unnoticed")
        path.write_bytes(content[:-3])
        with pytest.raises(IndexFileError):
            open_shards(folder, sha256=sha256)
        path.unlink()
        with pytest.raises(IndexFileError):
            open_shards(folder, sha256=sha256)
        path.write_bytes(content)
    open_shards(folder, sha256=sha256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards_version": 99}, "version 99; this version reads 1"),
        ({"groups": None}, "damaged"),
        ({"groups": [{"label": "en"}]}, "damaged"),
        ({"calibrations": {"*": {"x": 1}}}, "damaged"),
        ({"parts": {}}, "damaged"),
    ],
    ids=str,
)
def test_manifest_that_makes_no_sense_is_refused(saved, change, message):
    folder, _ = saved
    manifest = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(manifest | change))
    with pytest.raises(IndexFileError, match=message):
        open_shards(folder)
    (folder / "shards.json").write_text("[]")
    with pytest.raises(IndexFileError, match=r"shards\.json"):
        open_shards(folder)


def test_folder_appears_whole_or_not_at_all(index, tmp_path):
    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_shards(index, tmp_path / "a", files={"x": fail})
    assert list(tmp_path.iterdir()) == []
    save_shards(index, tmp_path / "a")
    with pytest.raises(OSError):
        save_shards(index, tmp_path / "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_opened_index_is_searched_by_many_threads(saved):
    opened = open_shards(saved[0]).index
    queries, _ = rows_with_languages(40, dimension=16, seed=2)
    wanted = opened.search(queries, 5).rows
    failures = []

    def search():
        for _ in range(10):
            if not np.array_equal(opened.search(queries, 5).rows, wanted):
                failures.append("different rows")

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
