import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from indexing_reference import EXAMPLE_NAMES, EXAMPLES, unit_rows

import indexing.folder
from indexing import (
    KINDS,
    Calibration,
    Flat,
    Hnsw,
    IndexFileError,
    IndexingError,
    VectorIndex,
    build_calibrated,
    open_index,
    read_manifest,
    save_index,
)

ROOT = Path(indexing.folder.__file__).parents[1]
QUERIES = unit_rows(10, seed=9)
GRAPH = Hnsw(m=8, ef_construction=40, ef_search=30)


def faiss_file(folder):
    return folder / read_manifest(folder).file


def assert_finds_the_same(index, other):
    found, expected = index.search(QUERIES, 5), other.search(QUERIES, 5)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.fixture
def folder(tmp_path):
    """A saved graph of 60 vectors."""
    save_index(VectorIndex.build(unit_rows(60), GRAPH), tmp_path / "index")
    return tmp_path / "index"


def test_every_kind_is_saved_and_loaded_in_these_tests():
    assert list(dict.fromkeys(kind.name for kind in EXAMPLES)) == list(KINDS)


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_saved_is_loaded(tmp_path, kind, memory_map):
    index = VectorIndex.build(unit_rows(300), kind)
    save_index(index, tmp_path / "deep" / "index")
    loaded = open_index(tmp_path / "deep" / "index", memory_map=memory_map)
    assert (loaded.kind, loaded.count, loaded.dimension) == (kind, 300, 16)
    assert_finds_the_same(loaded, index)
    if kind.keeps_vectors:
        rows = np.array([299, 3])
        np.testing.assert_array_equal(loaded.reconstruct(rows), index.reconstruct(rows))
    rows = np.arange(0, 300, 3)
    np.testing.assert_array_equal(
        loaded.search(QUERIES, 5, rows=rows).rows, index.search(QUERIES, 5, rows=rows).rows
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_a_memory_mapped_index_lies_in_the_page_cache(tmp_path, kind):
    save_index(VectorIndex.build(unit_rows(300), kind), tmp_path)
    path = str(faiss_file(tmp_path))
    copied = open_index(tmp_path, memory_map=False)
    assert path not in Path("/proc/self/maps").read_text()
    mapped = open_index(tmp_path)
    assert path in Path("/proc/self/maps").read_text()
    assert_finds_the_same(mapped, copied)


def test_an_index_of_nothing_is_saved_and_loaded(tmp_path):
    save_index(VectorIndex.build(np.empty((0, 16), np.float32)), tmp_path)
    assert open_index(tmp_path).count == 0


def test_the_manifest_says_what_was_saved(tmp_path):
    index = VectorIndex.build(unit_rows(20), Hnsw(m=4))
    saved = save_index(index, tmp_path, model="m2@abc", recall=0.97, extra={"generation": 3})
    assert read_manifest(tmp_path) == saved
    assert (saved.kind, saved.parameters) == ("hnsw", {"m": 4} | asdict(Hnsw(m=4)))
    assert (saved.format_version, saved.order, saved.calibration) == (2, None, None)
    assert (saved.dimension, saved.count) == (16, 20)
    assert (saved.model, saved.recall, saved.extra) == ("m2@abc", 0.97, {"generation": 3})
    assert saved.size_bytes == (tmp_path / saved.file).stat().st_size


def test_a_folder_of_version_1_is_still_opened(folder):
    before = open_index(folder).reconstruct(np.arange(60))
    edit_manifest(folder, format_version=1, order="remove", calibration="remove", parameters={"m": 8})
    assert open_index(folder).kind == Hnsw(m=8, storage="float32")
    np.testing.assert_array_equal(open_index(folder).reconstruct(np.arange(60)), before)
    assert (read_manifest(folder).order, read_manifest(folder).calibration) == (None, None)


ORDER = np.random.default_rng(5).permutation(60)


def reordered_index():
    return VectorIndex(Flat(), Flat().build(unit_rows(60)[ORDER]), ORDER)


@pytest.fixture
def reordered(tmp_path):
    """A saved index whose numbers are not the rows."""
    save_index(reordered_index(), tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("memory_map", [True, False])
def test_an_order_is_saved_and_loaded(reordered, memory_map):
    index = open_index(reordered, memory_map=memory_map)
    np.testing.assert_array_equal(index.order, ORDER)
    assert_finds_the_same(index, VectorIndex.build(unit_rows(60)))
    record = read_manifest(reordered).order
    path = reordered / record.file
    assert record.size_bytes == path.stat().st_size
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_index_without_order_leaves_no_order_file_behind(reordered):
    save_index(VectorIndex.build(unit_rows(33)), reordered)
    assert sorted(path.suffix for path in reordered.iterdir()) == [".faiss", ".json"]
    assert open_index(reordered).order is None


def test_a_damaged_order_is_named(reordered):
    path = reordered / read_manifest(reordered).order.file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexFileError, match=r"order-\w{16}\.npy: damaged; its sha256"):
        open_index(reordered)
    with pytest.raises(IndexFileError, match=r"\.npy: not the order of 60 vectors: order\[59\] is \d+"):
        open_index(reordered, verify=False)
    path.write_bytes(data[:-4])
    with pytest.raises(IndexFileError, match=r"order-\w{16}\.npy: has 364 bytes; the manifest says 368"):
        open_index(reordered, verify=False)
    path.write_bytes(b"x" * 368)
    with pytest.raises(IndexFileError, match=r"\.npy: not the order of 60 vectors"):
        open_index(reordered, verify=False)
    path.unlink()
    with pytest.raises(IndexFileError, match=r"\.npy: named by the manifest; cannot be read: No such"):
        open_index(reordered)


def test_a_calibration_is_saved_with_its_recall(tmp_path):
    vectors = unit_rows(600)
    index, calibration = build_calibrated(vectors, GRAPH, groups=np.arange(600) % 2, recall=0.9)
    saved = save_index(index, tmp_path, calibration=calibration)
    assert read_manifest(tmp_path) == saved
    assert Calibration(**read_manifest(tmp_path).calibration) == calibration
    assert saved.recall == calibration.recall
    loaded = open_index(tmp_path)
    assert loaded.kind == index.kind
    assert_finds_the_same(loaded, index)
    assert save_index(index, tmp_path, calibration=calibration, recall=0.5).recall == 0.5


def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IndexingError, match="extra cannot be written as JSON"):
        save_index(VectorIndex.build(unit_rows(2)), tmp_path / "index", extra={"a": {1}})
    assert not (tmp_path / "index").exists()


def test_saving_again_replaces_the_index_and_leaves_one_file(folder):
    save_index(VectorIndex.build(unit_rows(33)), folder)
    assert open_index(folder).count == 33
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [faiss_file(folder).name, "manifest.json"]
    )


def test_a_mapped_index_outlives_its_replacement(folder):
    mapped = open_index(folder)
    save_index(VectorIndex.build(unit_rows(33)), folder)
    assert_finds_the_same(mapped, VectorIndex.build(unit_rows(60), GRAPH))


def test_a_mapped_index_can_be_saved_onto_itself(folder):
    before = faiss_file(folder).read_bytes()
    mapped = open_index(folder)
    save_index(mapped, folder)
    assert faiss_file(folder).read_bytes() == before
    assert_finds_the_same(open_index(folder), mapped)


def test_an_index_replaced_while_being_opened_is_opened_anew(folder, monkeypatch):
    old = read_manifest(folder)
    save_index(VectorIndex.build(unit_rows(33)), folder)
    answers = iter([old])
    monkeypatch.setattr(
        indexing.folder, "read_manifest", lambda folder: next(answers, None) or read_manifest(folder)
    )
    assert open_index(folder).count == 33


KILLED_SAVE = """
import os, signal, sys
import faiss
import numpy as np
from indexing import Flat, VectorIndex, save_index
from indexing_reference import unit_rows

folder, moment, ordered = sys.argv[1:]
sync, calls = os.fsync, 0

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def counted_sync(descriptor):
    global calls
    calls += 1
    if f"sync {calls}" == moment:
        die()
    sync(descriptor)

os.fsync = counted_sync
if moment == "write":
    faiss.write_index = die
if moment == "clean up":
    os.unlink = die
vectors = unit_rows(33)
index = VectorIndex.build(vectors)
if ordered == "ordered":
    index = VectorIndex(Flat(), Flat().build(vectors[::-1].copy()), np.arange(33)[::-1])
save_index(index, folder)
sys.exit(f"was not killed; {calls} syncs")
"""


@pytest.mark.parametrize(
    ("moment", "ordered", "count"),
    [
        ("write", "plain", 60),
        pytest.param("clean up", "plain", 33, marks=pytest.mark.slow),
        ("sync 6", "ordered", 60),
        *(pytest.param(f"sync {n}", "plain", 60, marks=pytest.mark.slow) for n in (1, 2, 3, 4)),
        pytest.param("sync 5", "plain", 33, marks=pytest.mark.slow),
        pytest.param("sync 7", "ordered", 33, marks=pytest.mark.slow),
        *(pytest.param(f"sync {n}", "ordered", 60, marks=pytest.mark.slow) for n in (1, 2, 3, 4, 5)),
    ],
)
def test_a_killed_save_leaves_a_whole_index(folder, moment, ordered, count):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_SAVE, folder, moment, ordered],
        env={"PYTHONPATH": ":".join(str(path) for path in (ROOT, Path(__file__).parent))},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    index = open_index(folder)
    assert index.count == count
    assert (index.order is not None) == (count == 33 and ordered == "ordered")
    assert_finds_the_same(index, VectorIndex.build(unit_rows(count), index.kind))
    save_index(VectorIndex.build(unit_rows(44)), folder)
    assert open_index(folder).count == 44
    assert sorted(path.suffix for path in folder.iterdir()) == [".faiss", ".json"]


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value != "remove"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, r"manifest\.json: format version 3; this version reads 1 to 2"),
        ({"format_version": True}, r"manifest\.json: format version True"),
        ({"format_version": 1}, r"manifest\.json: missing or unknown fields: calibration, order"),
        ({"order": 5}, r"manifest\.json: order is 5; expected an object or null"),
        (
            {"order": {"file": "order-0.npy"}},
            r"manifest\.json: missing or unknown fields: sha256, size_bytes",
        ),
        ({"format_version": "remove"}, r"manifest\.json: format version None"),
        ({"sha256": "remove"}, r"manifest\.json: missing or unknown fields: sha256"),
        ({"colour": 1}, r"manifest\.json: missing or unknown fields: colour"),
        ({"kind": 5}, r"manifest\.json: kind is 5; expected str"),
        ({"kind": "tree"}, r"manifest\.json: unknown index kind 'tree'"),
        ({"parameters": {"m": 0}}, r"manifest\.json: hnsw parameter m is 0"),
        ({"file": "../outside.faiss"}, r"manifest\.json: file is '\.\./outside\.faiss'"),
        ({"file": "index-0.faiss"}, r"index-0\.faiss: named by the manifest; cannot be read: No such"),
        ({"size_bytes": 1}, r"\.faiss: has \d+ bytes; the manifest says 1"),
        ({"sha256": "0" * 64}, r"\.faiss: damaged; its sha256 is not the one"),
        ({"count": 61}, r"\.faiss: holds IndexHNSWFlat with 60 vectors .* the manifest says hnsw, 61"),
        ({"dimension": 8}, r"of dimension 16, .* of dimension 8"),
        ({"kind": "flat", "parameters": {}}, r"holds IndexHNSWFlat .* the manifest says flat"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_named(folder, changes, message):
    edit_manifest(folder, **changes)
    with pytest.raises(IndexFileError, match=message):
        open_index(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_manifest_that_is_no_json_object_is_named(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IndexFileError, match=r"manifest\.json: (not JSON|format version None)"):
        open_index(folder)


def test_a_missing_folder_or_manifest_is_named(folder):
    with pytest.raises(IndexFileError, match=r"nowhere/manifest\.json: cannot be read: No such file"):
        open_index(folder / "nowhere")
    (folder / "manifest.json").unlink()
    with pytest.raises(IndexFileError, match=r"manifest\.json: cannot be read: No such file"):
        open_index(folder)


def test_a_missing_faiss_file_is_named(folder):
    faiss_file(folder).unlink()
    with pytest.raises(
        IndexFileError, match=r"index-\w{16}\.faiss: named by the manifest; cannot be read: No such"
    ):
        open_index(folder)


def test_a_truncated_faiss_file_is_named(folder):
    path = faiss_file(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(IndexFileError, match=r"index-\w{16}\.faiss: has \d+ bytes; the manifest says"):
        open_index(folder, verify=False)


def test_a_flipped_bit_is_found(folder):
    data = bytearray(faiss_file(folder).read_bytes())
    data[len(data) // 2] ^= 1
    faiss_file(folder).write_bytes(data)
    with pytest.raises(IndexFileError, match="damaged; its sha256"):
        open_index(folder)


@pytest.mark.parametrize("memory_map", [True, False])
def test_a_file_faiss_cannot_read_is_named(folder, memory_map):
    path = faiss_file(folder)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(IndexFileError, match="FAISS cannot read it"):
        open_index(folder, memory_map=memory_map, verify=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("file", ["order.tmp", "index.tmp", "manifest.tmp"])
def test_a_full_disk_is_reported_and_leaves_the_old_index(folder, file):
    (folder / file).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        save_index(reordered_index(), folder)
    assert open_index(folder).count == 60
