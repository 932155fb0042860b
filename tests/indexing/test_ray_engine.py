"""Blocks and merges as tasks of Ray: the bytes of the local engine, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from indexing import IndexingError, NeighbourPlan, VectorShards, neighbours_of_shards, shards_of_array
from indexing.vector_shards import RowSource
from tests.indexing.indexing_reference import unit_rows
from tests.indexing.ray_cluster import Cluster
from tests.indexing.ray_fixtures import (
    EXACT,
    MARKS,
    Sides,
    blocks,
    cluster,
    files,
    large_sides,
    ray,
    sides,
)

from indexing import ray_engine as engine_module  # isort: skip
from indexing.ray_engine import RayEngine, ray_engine  # isort: skip

__all__ = ["cluster", "large_sides", "sides"]
pytestmark = MARKS


@pytest.fixture(scope="module")
def engine(cluster: Cluster) -> Iterator[RayEngine]:
    with ray_engine(cluster.address, threads=1) as connected:
        yield connected


@pytest.mark.parametrize("method", ["exact", "int8", "truncated", "ivf"])
def test_bytes_are_those_of_the_local_engine(sides: Sides, engine: RayEngine, method: str) -> None:
    parameters = {"truncated": {"dimensions": 16}, "ivf": {"nprobe": 2}}.get(method, {})
    plan = NeighbourPlan(method, parameters, threads=1)
    neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=plan, engine=engine)
    assert files(sides.folder / "ray") == sides.expected(plan)


def test_a_shard_added_computes_only_its_row_and_column(sides: Sides, engine: RayEngine) -> None:
    x, y = (part.read(0, len(part)) for part in (sides.x, sides.y))
    folder = sides.folder / "ray"
    before = [shards_of_array(rows[:300], shard_rows=100) for rows in (x, y)]
    neighbours_of_shards(*before, 4, folder, plan=EXACT, engine=engine)
    kept = blocks(folder)
    after = [shards_of_array(rows, shard_rows=100) for rows in (x, y)]
    told: list[int] = []
    neighbours_of_shards(
        *after, 4, folder, plan=EXACT, engine=engine, progress=lambda done, _: told.append(done)
    )
    assert len(kept) == 9
    assert blocks(folder).items() > kept.items()
    assert len(blocks(folder)) == 5 * 4
    assert min(told) >= 3 * 300
    neighbours_of_shards(*after, 4, sides.folder / "anew", plan=EXACT)
    assert files(folder).items() >= files(sides.folder / "anew").items()


@dataclass(frozen=True)
class Elsewhere:
    """Rows that other processes look for in vain, or find others in their place."""

    source: RowSource
    found: RowSource

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.source.read(start, stop)

    def elsewhere(self) -> RowSource | None:
        return self.found


@pytest.mark.parametrize("what", ["no file", "another file", "matrix"])
def test_rows_that_workers_do_not_see_are_sent(
    sides: Sides, engine: RayEngine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = sides.folder / "other.npy"
    np.save(path, unit_rows(420, 32, seed=7))
    if what == "matrix":
        x = shards_of_array(sides.x.read(0, 420), shard_rows=100)
    else:
        other = shards_of_array(path, shard_rows=100).source
        x = VectorShards(420, 32, sides.x.dtype, 100, Elsewhere(sides.x.source, other), sides.x.hashes)
    if what == "no file":
        path.unlink()
    put: list[int] = []
    real = ray.put
    monkeypatch.setattr(ray, "put", lambda rows: put.append(len(rows)) or real(rows))
    neighbours_of_shards(x, sides.y, 4, sides.folder / "ray", plan=EXACT, engine=engine)
    assert put == [100, 100, 100, 100, 20]
    assert files(sides.folder / "ray") == sides.expected()


@pytest.mark.usefixtures("engine")
def test_sent_rows_are_held_up_to_a_limit(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_SHIPPED_BYTES", 2 * 100 * 32 * 4)
    x = shards_of_array(sides.x.read(0, 420), shard_rows=100)
    sender = engine_module._Sender(x)
    first, second = sender.shard(0), sender.shard(1)
    assert sender.shard(0) == first
    sender.shard(2)
    assert sender.shard(0) == first
    assert sender.shard(1) != second
    np.testing.assert_array_equal(ray.get(sender.shard(1)), x.read(100, 200))


def test_a_killed_worker_costs_its_block(large_sides: Sides, engine: RayEngine) -> None:
    killed: list[int] = []

    def kill_one(done: int, _: int) -> None:
        if not killed and done:
            killed.extend(worker for worker in workers()[:1] if os.kill(worker, signal.SIGKILL) is None)

    folder = large_sides.folder / "ray"
    neighbours_of_shards(
        large_sides.x, large_sides.y, 4, folder, plan=EXACT, engine=engine, progress=kill_one
    )
    assert len(killed) == 1
    assert files(folder) == large_sides.expected()


def workers() -> list[int]:
    """The processes that compute blocks at this moment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::compute_block"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_cancelling_ends_the_tasks(sides: Sides, engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    class CancelledError(Exception):
        pass

    def cancel(*_: int) -> None:
        if not ray.available_resources().get("CPU"):
            raise CancelledError

    monkeypatch.setattr(engine_module, "compute_block", lambda *_: time.sleep(120))
    with pytest.raises(CancelledError):
        neighbours_of_shards(
            sides.x, sides.y, 4, sides.folder / "ray", plan=EXACT, engine=engine, progress=cancel
        )
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_no_more_is_begun_than_twice_what_can_run(
    large_sides: Sides, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    real = ray.wait

    def wait(refs: list[Any], **options: Any) -> Any:
        nonlocal most
        most = max(most, len(refs))
        return real(refs, **options)

    monkeypatch.setattr(ray, "wait", wait)
    neighbours_of_shards(
        large_sides.x, large_sides.y, 4, large_sides.folder / "ray", plan=EXACT, engine=engine
    )
    assert most == 2 * 2 + 2


def test_too_much_memory_is_one_line_at_once(sides: Sides, engine: RayEngine) -> None:
    plan = NeighbourPlan("exact", memory_bytes=1 << 50)
    with pytest.raises(IndexingError, match="a task takes 1 CPUs and 1073741824 MiB; no node"):
        neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=plan, engine=engine)


def test_another_version_on_the_workers_is_refused(
    sides: Sides, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sides.folder / "ray"
    message = "is another version than here; install the same on all nodes"
    monkeypatch.setattr(engine_module, "code_fingerprint", lambda: "0" * 64)
    with pytest.raises(IndexingError, match=message):
        neighbours_of_shards(sides.x, sides.y, 4, folder, plan=EXACT, engine=engine)
    assert not blocks(folder)
    neighbours_of_shards(sides.x, sides.y, 4, folder, plan=EXACT)
    with pytest.raises(IndexingError, match=message):  # of the merges
        neighbours_of_shards(sides.x, sides.y, 4, folder, plan=EXACT, engine=engine)


def test_an_error_of_a_method_is_that_of_the_local_engine(sides: Sides, engine: RayEngine) -> None:
    plan = NeighbourPlan("truncated", {"dimensions": 33})
    with pytest.raises(IndexingError, match=r"^dimensions is 33; the vectors have only 32$"):
        neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=plan, engine=engine)
