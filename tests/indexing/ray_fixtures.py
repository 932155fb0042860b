"""What the tests of Ray share. Import this before ray: it sets what ray reads when it is imported."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from indexing import NeighbourPlan, VectorShards, neighbours_of_shards, shards_of_array
from tests.indexing.indexing_reference import unit_rows
from tests.indexing.ray_cluster import Cluster, processes_of_ray, ray_cluster

if find_spec("ray"):
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'embedsvc[ray]'")

EXACT = NeighbourPlan("exact")
MARKS = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the warnings of Ray change with it


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A machine of two CPUs."""
    before = processes_of_ray()
    with ray_cluster(cpus=2) as started:
        yield started
    assert processes_of_ray() <= before


@dataclass(frozen=True, eq=False)
class Sides:
    """Vectors as files, and the folder of their neighbours as the local engine makes it."""

    folder: Path
    x: VectorShards
    y: VectorShards

    def expected(self, plan: NeighbourPlan = EXACT) -> dict[str, bytes]:
        """Return the files of the local engine."""
        neighbours_of_shards(self.x, self.y, 4, self.folder / f"local-{plan.method}", plan=plan)
        return files(self.folder / f"local-{plan.method}")


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Blocks of milliseconds, 20 of them."""
    return _sides(tmp_path, (420, 350), 32, 100)


@pytest.fixture
def large_sides(tmp_path: Path) -> Sides:
    """Blocks of some tenths of a second, 25 of them."""
    return _sides(tmp_path, (20_000, 20_000), 256, 4_000)


def _sides(folder: Path, rows: tuple[int, int], dimension: int, shard_rows: int) -> Sides:
    np.save(folder / "x.npy", unit_rows(rows[0], dimension, seed=1))
    np.save(folder / "y.npy", unit_rows(rows[1], dimension, seed=2).astype(np.float16))
    x, y = (shards_of_array(folder / name, shard_rows=shard_rows) for name in ("x.npy", "y.npy"))
    return Sides(folder, x, y)


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def blocks(folder: Path) -> dict[str, int]:
    """Return the blocks of a folder and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.block")}
