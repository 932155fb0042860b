import json
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from indexing_reference import unit_rows

from indexing import (
    IndexFileError,
    IndexingError,
    ShardWriter,
    VectorError,
    open_vector_shards,
    shards_of_array,
)

ROWS = unit_rows(1000, 24)
EXTRA = {"model": "abc", "texts": "def"}


def writer(folder, **changes):
    arguments = {"rows": 1000, "dimension": 24, "shard_rows": 300, "extra": EXTRA} | changes
    return ShardWriter(folder, **arguments)


def written(folder, **changes):
    with writer(folder, **changes) as unfinished:
        unfinished.write(ROWS[unfinished.next_row :])
        return unfinished.close()


def shard_files(folder):
    return sorted(folder.glob("*.npy"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("parts", [[1000], [1, 299, 1, 699], [150] * 6 + [100], [0, 1000]])
def test_rows_are_read_as_they_were_written(tmp_path, dtype, parts):
    with writer(tmp_path, dtype=dtype) as unfinished:
        for part in np.split(ROWS, np.cumsum(parts)[:-1]):
            unfinished.write(part)
        closed = unfinished.close()
    for vectors in (closed, open_vector_shards(tmp_path, expected=EXTRA)):
        assert (len(vectors), vectors.dimension, vectors.dtype, vectors.extra) == (1000, 24, dtype, EXTRA)
        for start, stop in ((0, 1000), (0, 0), (299, 301), (250, 950), (999, 1000)):
            found = vectors.read(start, stop)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, ROWS[start:stop].astype(dtype))


def test_every_shard_is_a_npy_file_and_its_fingerprint_that_files_hash(tmp_path):
    vectors = written(tmp_path)
    parts = [np.load(path) for path in shard_files(tmp_path)]
    np.testing.assert_array_equal(np.concatenate(parts), ROWS.astype(np.float16))
    assert [len(part) for part in parts] == [300, 300, 300, 100]
    assert [path.stem[6:] for path in shard_files(tmp_path)] == vectors.fingerprints()


def test_the_same_rows_have_the_same_fingerprints_wherever_they_are(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.astype(np.float16))
    expected = written(tmp_path / "folder").fingerprints()
    assert shards_of_array(ROWS.astype(np.float16), shard_rows=300).fingerprints() == expected
    assert shards_of_array(tmp_path / "x.npy", shard_rows=300).fingerprints() == expected
    assert shards_of_array(ROWS, shard_rows=300).fingerprints() != expected


def test_an_unfinished_folder_goes_on_after_the_last_whole_shard(tmp_path):
    unfinished = writer(tmp_path / "a")
    unfinished.write(ROWS[:750])
    assert unfinished.next_row == 750
    unfinished.abandon()
    assert unfinished.next_row == 600
    with pytest.raises(IndexFileError, match="unfinished; not all of its 1000 rows"):
        open_vector_shards(tmp_path / "a")
    again = writer(tmp_path / "a")
    assert again.next_row == 600
    again.write(ROWS[600:])
    again.close()
    written(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_a_finished_folder_is_not_written_again(tmp_path):
    written(tmp_path, extra=EXTRA | {"sizes": (1, 2)})
    again = writer(tmp_path, extra=EXTRA | {"sizes": (1, 2)})
    assert again.next_row == 1000
    assert len(again.close()) == 1000


@pytest.mark.parametrize("shard", [0, 2])
def test_a_damaged_shard_and_those_after_it_are_written_again(tmp_path, shard):
    unfinished = writer(tmp_path)
    unfinished.write(ROWS[:900])
    unfinished.abandon()
    path = shard_files(tmp_path)[shard]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert writer(tmp_path).next_row == 300 * shard
    vectors = written(tmp_path)
    np.testing.assert_array_equal(vectors.read(0, 1000), ROWS.astype(np.float16))
    open_vector_shards(tmp_path)
    assert len(shard_files(tmp_path)) == 4


def test_damage_is_refused_with_the_file_and_the_reason(tmp_path):
    written(tmp_path)
    path = shard_files(tmp_path)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(
        IndexFileError, match=f"{path.name}: has {len(whole) - 5} bytes; {len(whole)} are expected"
    ):
        open_vector_shards(tmp_path, verify=False)
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(IndexFileError, match=f"{path.name}: damaged"):
        open_vector_shards(tmp_path)
    vectors = open_vector_shards(tmp_path, verify=False)
    path.write_bytes(whole[:500])
    with pytest.raises(IndexFileError, match=f"{path.name}: ends after 500 bytes; truncated"):
        vectors.read(0, 1000)
    path.unlink()
    with pytest.raises(IndexFileError, match=f"{path.name}: cannot be read: No such file"):
        open_vector_shards(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "format version None"),
        ('{"format_version": 2}', "format version 2; this version reads 1"),
        ('{"format_version": 1}', "missing or unknown fields: dimension"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, text, message):
    (tmp_path / "vectors.json").write_text(text)
    with pytest.raises(IndexFileError, match=message):
        open_vector_shards(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows", -1), ("dimension", 0), ("shard_rows", True), ("dtype", "int8"), ("extra", 3), ("files", ["a"])],
)
def test_a_description_with_a_wrong_value_is_refused(tmp_path, name, value):
    written(tmp_path)
    values = json.loads((tmp_path / "vectors.json").read_text())
    (tmp_path / "vectors.json").write_text(json.dumps(values | {name: value}))
    with pytest.raises(IndexFileError, match=f"vectors.json: {name} "):
        open_vector_shards(tmp_path)


def test_other_vectors_than_expected_are_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(IndexFileError, match="model is 'abc'; expected 'xyz'"):
        open_vector_shards(tmp_path, expected={"model": "xyz"})
    with pytest.raises(IndexFileError, match="prompt is None; expected 'query: '"):
        open_vector_shards(tmp_path, expected={"prompt": "query: "})
    with pytest.raises(IndexFileError, match="dimension is 24; expected 25"):
        writer(tmp_path, dimension=25)
    with pytest.raises(IndexFileError, match="texts is 'def'; expected 'ghi'"):
        writer(tmp_path, extra=EXTRA | {"texts": "ghi"})
    writer(tmp_path / "b", extra=EXTRA | {"prompt": "p"})
    with pytest.raises(IndexFileError, match="prompt is 'p'; expected None"):
        writer(tmp_path / "b")


def test_wrong_rows_are_refused_by_number(tmp_path):
    unfinished = writer(tmp_path)
    unfinished.write(ROWS[:310])
    bad = ROWS[310:320].copy()
    bad[4, 2] = np.nan
    with pytest.raises(VectorError, match=r"vectors\[314\] holds NaN"):
        unfinished.write(bad)
    with pytest.raises(VectorError, match=r"vectors\[310\] has length 2"):
        unfinished.write(ROWS[310:311] * 2)
    with pytest.raises(VectorError, match="dimension 23; expected 24"):
        unfinished.write(unit_rows(2, 23))
    with pytest.raises(VectorError, match="1310 rows were given; 1000 were promised"):
        unfinished.write(ROWS)
    with pytest.raises(IndexingError, match="310 rows were written; 1000 were promised"):
        unfinished.close()
    unfinished.abandon()
    with pytest.raises(IndexingError, match="dtype is 'int8'"):
        writer(tmp_path / "b", dtype="int8")
    with pytest.raises(IndexingError, match="extra cannot be written as JSON"):
        writer(tmp_path / "b", extra={"model": b"abc"})
    with pytest.raises(IndexingError, match="shard_rows 0"):
        writer(tmp_path / "b", shard_rows=0)


def test_there_may_be_no_rows_at_all(tmp_path):
    vectors = writer(tmp_path, rows=0).close()
    assert (len(vectors), vectors.fingerprints(), vectors.bounds()) == (0, [], [])
    assert vectors.read(0, 0).shape == (0, 24)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_matrix_is_read_in_place(tmp_path, dtype, on_disk):
    given = ROWS.astype(dtype)
    np.save(tmp_path / "x.npy", given)
    vectors = shards_of_array(tmp_path / "x.npy" if on_disk else given, shard_rows=300)
    assert vectors.bounds() == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert vectors.dtype == (np.float16 if dtype is np.float16 else np.float32)
    np.testing.assert_array_equal(vectors.read(250, 950), given[250:950].astype(np.float32))


def test_rows_of_any_length_are_scaled_on_request(tmp_path):
    lengths = np.random.default_rng(1).uniform(0.1, 50, (1000, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", ROWS * lengths)
    vectors = shards_of_array(tmp_path / "x.npy", shard_rows=300, normalize=True)
    np.testing.assert_allclose(vectors.read(0, 1000), ROWS, atol=1e-6)


def test_what_cannot_be_read_as_vectors_is_refused(tmp_path):
    bad = unit_rows(9000, 24)
    bad[8500, 1] = np.inf
    np.save(tmp_path / "x.npy", bad)
    with pytest.raises(VectorError, match=r"x.npy\[8500\] holds NaN or infinity"):
        shards_of_array(tmp_path / "x.npy")
    with pytest.raises(VectorError, match=r"vectors\[0\] has length 3"):
        shards_of_array(ROWS * 3)
    with pytest.raises(VectorError, match=r"vectors\[7\] is all zeros"):
        shards_of_array(np.where(np.arange(1000)[:, None] == 7, 0, ROWS), normalize=True)
    with pytest.raises(VectorError, match=r"dtype int8"):
        shards_of_array(ROWS.astype(np.int8))
    with pytest.raises(VectorError, match=r"shape \(24,\)"):
        shards_of_array(ROWS[0])
    np.save(tmp_path / "f.npy", np.asfortranarray(ROWS))
    with pytest.raises(VectorError, match=r"f.npy is stored column by column"):
        shards_of_array(tmp_path / "f.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    with pytest.raises(IndexFileError, match=r"cut.npy: not a whole .npy file"):
        shards_of_array(tmp_path / "cut.npy")
    (tmp_path / "text.npy").write_text("0.1 0.2")
    with pytest.raises(IndexFileError, match=r"text.npy: not a .npy file"):
        shards_of_array(tmp_path / "text.npy")
    with pytest.raises(IndexFileError, match=r"gone.npy: cannot be read"):
        shards_of_array(tmp_path / "gone.npy")
    with pytest.raises(IndexingError, match="rows 5 to 1001 are not within the 1000"):
        shards_of_array(ROWS).read(5, 1001)
    with pytest.raises(IndexingError, match="shard_rows is 0"):
        shards_of_array(ROWS, shard_rows=0)


@contextmanager
def file_limit(size_bytes):
    """No file may become longer, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    unfinished = writer(tmp_path)
    unfinished.write(ROWS[:300])
    with file_limit(10_000), pytest.raises(OSError, match=r"File too large: '.*shard.tmp'"):
        unfinished.write(ROWS[300:])
    assert unfinished.next_row == 300
    unfinished.write(ROWS[300:])
    np.testing.assert_array_equal(unfinished.close().read(0, 1000), ROWS.astype(np.float16))


WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from indexing_reference import unit_rows
from indexing import ShardWriter
rows = unit_rows(4000, 64)
writer = ShardWriter(sys.argv[1], rows=4000, dimension=64, shard_rows=50, extra={})
print(writer.next_row, flush=True)
while writer.next_row < 4000:
    writer.write(rows[writer.next_row : writer.next_row + 7])
writer.close()
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_loses_no_whole_shard(tmp_path):
    random = np.random.default_rng(5)
    command = [sys.executable, "-c", WRITE, str(tmp_path), str(Path(__file__).parent)]
    begun = []
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            begun.append(int(process.stdout.readline()))
            time.sleep(random.uniform(0, 0.03))
            process.kill()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert begun == sorted(begun)
    assert begun[-1] > 0
    expected = unit_rows(4000, 64).astype(np.float16)
    np.testing.assert_array_equal(open_vector_shards(tmp_path).read(0, 4000), expected)
    assert len(list(tmp_path.iterdir())) == 81
