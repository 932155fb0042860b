"""Blocks and merges on a real Ray cluster: the bytes of the local engine, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
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
from tests.indexing.ray_cluster import Cluster, free_port, processes_of_ray, ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings change with it
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}  # read when ray is imported
ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'embedsvc[ray]'")
from indexing import ray_engine as engine_module  # noqa: E402
from indexing.ray_connection import check_cluster  # noqa: E402
from indexing.ray_engine import RayEngine, ray_engine  # noqa: E402

EXACT = NeighbourPlan("exact")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    before = processes_of_ray()
    with ray_cluster(cpus=2) as started:
        yield started
    assert processes_of_ray() <= before


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[RayEngine]:
    with ray_engine(cluster.address, threads=1) as connected:
        yield connected


@dataclass(frozen=True, eq=False)
class Sides:
    """Vectors as files, and the folder of their neighbours as the local engine makes it."""

    folder: Path
    x: VectorShards
    y: VectorShards

    def expected(self, plan: NeighbourPlan = EXACT) -> dict[str, bytes]:
        neighbours_of_shards(self.x, self.y, 4, self.folder / f"local-{plan.method}", plan=plan)
        return files(self.folder / f"local-{plan.method}")


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    np.save(tmp_path / "x.npy", unit_rows(420, 32, seed=1))
    np.save(tmp_path / "y.npy", unit_rows(350, 32, seed=2).astype(np.float16))
    x, y = (shards_of_array(tmp_path / name, shard_rows=100) for name in ("x.npy", "y.npy"))
    return Sides(tmp_path, x, y)


@pytest.fixture
def large_sides(tmp_path: Path) -> Sides:
    """Blocks of some tenths of a second each, 25 of them."""
    x, y = (shards_of_array(unit_rows(25_000, 256, seed=seed), shard_rows=5_000) for seed in (1, 2))
    return Sides(tmp_path, x, y)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def blocks(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.block")}


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
    kept = {name: (folder / name).stat().st_mtime_ns for name in blocks(folder)}
    after = [shards_of_array(rows, shard_rows=100) for rows in (x, y)]
    told: list[int] = []
    neighbours_of_shards(
        *after, 4, folder, plan=EXACT, engine=engine, progress=lambda done, _: told.append(done)
    )
    assert len(kept) == 9
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
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


def test_a_machine_that_does_not_see_the_folder_takes_part(sides: Sides) -> None:
    """The second machine has an empty file system in place of the folder; only it has CPUs."""
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {sides.folder} && exec "$@"', "sh")
    probe = subprocess.run([*hidden, "ls", str(sides.folder)], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this system does not let tests hide folders: {probe.stderr.strip()}")
    assert probe.stdout == ""
    with ray_cluster(cpus=0) as cluster:
        cluster.join(2, before=hidden)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            cluster.wait_for(2)
            with ray_engine(threads=1) as engine:
                folder = sides.folder / "ray"
                neighbours_of_shards(sides.x, sides.y, 4, folder, plan=EXACT, engine=engine)
        finally:
            ray.shutdown()
    assert files(sides.folder / "ray") == sides.expected()


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


def test_a_lost_machine_costs_its_blocks(large_sides: Sides) -> None:
    with ray_cluster(cpus=1) as cluster:
        second = cluster.join(1)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            cluster.wait_for(2)

            def lose(done: int, _: int) -> None:
                if done and second.poll() is None:
                    os.killpg(second.pid, signal.SIGKILL)
                    second.wait()

            with ray_engine(threads=1) as engine:
                folder = large_sides.folder / "ray"
                neighbours_of_shards(
                    large_sides.x, large_sides.y, 4, folder, plan=EXACT, engine=engine, progress=lose
                )
        finally:
            ray.shutdown()
    assert second.poll() is not None
    assert files(folder) == large_sides.expected()


def test_cancelling_ends_the_tasks(large_sides: Sides, engine: RayEngine) -> None:
    class CancelledError(Exception):
        pass

    def cancel(done: int, _: int) -> None:
        if done:
            raise CancelledError

    with pytest.raises(CancelledError):
        neighbours_of_shards(
            large_sides.x,
            large_sides.y,
            4,
            large_sides.folder / "ray",
            plan=EXACT,
            engine=engine,
            progress=cancel,
        )
    deadline = time.monotonic() + 10
    while workers():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert 1 <= len(blocks(large_sides.folder / "ray")) < 25


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


DRIVER = """
import sys
from pathlib import Path
import numpy as np
from indexing import NeighbourPlan, neighbours_of_shards, shards_of_array
from indexing.ray_engine import ray_engine
folder = Path(sys.argv[1])
x, y = (shards_of_array(folder / name, shard_rows=5_000) for name in ("x.npy", "y.npy"))
with ray_engine(sys.argv[2], threads=1) as engine:
    neighbours_of_shards(x, y, 4, folder / "ray", plan=NeighbourPlan("exact"), engine=engine)
"""


def test_a_killed_driver_goes_on_from_its_blocks(large_sides: Sides, cluster: Cluster) -> None:
    folder = large_sides.folder
    np.save(folder / "x.npy", large_sides.x.read(0, 25_000))
    np.save(folder / "y.npy", large_sides.y.read(0, 25_000))
    command = [sys.executable, "-c", DRIVER, str(folder), cluster.address]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(blocks(folder / "ray")) < 3:
        assert driver.poll() is None, driver.communicate()[1].decode()
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    kept = {name: (folder / "ray" / name).stat().st_mtime_ns for name in blocks(folder / "ray")}
    assert len(kept) < 25
    assert not (folder / "ray" / "x_to_y.rows.npy").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert {name: (folder / "ray" / name).stat().st_mtime_ns for name in kept} == kept
    assert files(folder / "ray") == large_sides.expected()


def test_a_caller_who_is_connected_stays_so(cluster: Cluster) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        found = ray.get_runtime_context().gcs_address
        with ray_engine(found):
            pass
        with (
            pytest.raises(IndexingError, match=r"connected to .* already, not to 127\.0\.0\.1:1$"),
            ray_engine("127.0.0.1:1"),
        ):
            pass
        assert ray.is_initialized()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


def test_how_the_process_ends_is_left_to_it(cluster: Cluster) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ray_engine(cluster.address):
        assert signal.getsignal(signal.SIGTERM) is before
    assert not ray.is_initialized()


def test_too_many_threads_are_one_line_at_once(cluster: Cluster) -> None:
    with pytest.raises(IndexingError) as error, ray_engine(cluster.address, threads=64):
        pass
    assert str(error.value).startswith(
        "a task takes 64 CPUs; no node of the Ray cluster has so much: 2 CPUs and"
    )


def test_too_much_memory_is_one_line_at_once(sides: Sides, engine: RayEngine) -> None:
    plan = NeighbourPlan("exact", memory_bytes=1 << 50)
    with pytest.raises(IndexingError, match="a task takes 1 CPUs and 1073741824 MiB; no node"):
        neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=plan, engine=engine)


def test_another_version_on_the_workers_is_refused(
    sides: Sides, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "code_fingerprint", lambda: "0" * 64)
    with pytest.raises(IndexingError, match="is another version than here; install the same on all nodes"):
        neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=EXACT, engine=engine)


def test_an_error_of_a_method_is_that_of_the_local_engine(sides: Sides, engine: RayEngine) -> None:
    plan = NeighbourPlan("truncated", {"dimensions": 33})
    with pytest.raises(IndexingError, match=r"^dimensions is 33; the vectors have only 32$"):
        neighbours_of_shards(sides.x, sides.y, 4, sides.folder / "ray", plan=plan, engine=engine)


def test_another_version_of_ray_is_one_line(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "0.0.1")
    with (
        pytest.raises(IndexingError, match=r"no connection to .*Version mismatch.*0\.0\.1") as error,
        ray_engine(cluster.address),
    ):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "ray address 'ray://127.0.0.1:10001': expected HOST:PORT of"),
        ("localhost", "ray address 'localhost': expected HOST:PORT of"),
        ("127.0.0.1:99999", "ray address 127.0.0.1:99999: cannot be reached: "),
        (f"127.0.0.1:{free_port()}", "cannot be reached: Connection refused"),
    ],
)
def test_an_address_without_a_cluster_is_one_line_at_once(address: str, message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(IndexingError) as error, ray_engine(address):
        pass
    assert message in str(error.value)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_another_server_at_the_address_is_told_within_seconds(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexing.ray_connection._SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is None:
                    time.sleep(2)
                else:
                    connection.recv(100)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(IndexingError, match=r"no head of a Ray cluster|cannot be reached"):
            check_cluster(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
