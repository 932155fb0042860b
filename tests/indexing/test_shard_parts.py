"""A shard in another process: the very rows, or a refusal."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from indexing import IndexFileError, ShardWriter, VectorShards, shards_of_array
from indexing.shard_parts import ShardPart, shard_part, stored_rows
from tests.indexing.indexing_reference import unit_rows

ROWS = unit_rows(25, 8, seed=3)


def sent(part: ShardPart) -> ShardPart:
    copy: ShardPart = pickle.loads(pickle.dumps(part))
    return copy


@pytest.fixture(params=["folder", "file", "normalized file"])
def shards(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorShards:
    monkeypatch.chdir(tmp_path)
    if request.param == "folder":
        writer = ShardWriter("vectors", rows=25, dimension=8, shard_rows=10, extra={})
        writer.write(ROWS)
        return writer.close()
    np.save("rows.npy", ROWS * 3 if request.param == "normalized file" else ROWS)
    return shards_of_array("rows.npy", shard_rows=10, normalize=request.param == "normalized file")


def test_a_part_is_read_in_another_working_folder(
    shards: VectorShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [shards.read(*bounds) for bounds in shards.bounds()]
    parts = [sent(shard_part(shards, number)) for number in range(3)]
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    for part, rows in zip(parts, expected, strict=True):
        found = part.read()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows)


def test_stored_rows_are_the_same_in_float32(shards: VectorShards) -> None:
    np.testing.assert_array_equal(stored_rows(shards, 2).astype(np.float32), shards.read(20, 25))


def test_other_rows_under_the_name_are_refused(shards: VectorShards, tmp_path: Path) -> None:
    part = sent(shard_part(shards, 1))
    path = next(tmp_path.rglob("00001-*.npy"), tmp_path / "rows.npy")
    content = bytearray(path.read_bytes())
    content[2 - 6 * 8 * 4 if path.name == "rows.npy" else -2] ^= 32  # in the second shard
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="other rows"):
        part.read()
    path.unlink()
    with pytest.raises(IndexFileError, match="cannot be read"):
        part.read()


def test_a_matrix_is_in_no_file() -> None:
    part = shard_part(shards_of_array(ROWS, shard_rows=10), 0)
    assert len(pickle.dumps(part)) < 1_000
    with pytest.raises(IndexFileError, match="in no file"):
        part.read()
