"""The way to a cluster, and clusters whose machines differ or are lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from indexing import IndexingError, neighbours_of_shards
from tests.indexing.ray_cluster import Cluster, free_port, ray_cluster
from tests.indexing.ray_fixtures import EXACT, MARKS, Sides, blocks, cluster, files, large_sides, ray, sides

from indexing.ray_connection import check_cluster  # isort: skip
from indexing.ray_engine import ray_engine  # isort: skip

__all__ = ["cluster", "large_sides", "sides"]
pytestmark = MARKS


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


DRIVER = """
import sys
from pathlib import Path
import numpy as np
from indexing import NeighbourPlan, neighbours_of_shards, shards_of_array
from indexing.ray_engine import ray_engine
folder = Path(sys.argv[1])
x, y = (shards_of_array(folder / name, shard_rows=4_000) for name in ("x.npy", "y.npy"))
with ray_engine(sys.argv[2], threads=1) as engine:
    neighbours_of_shards(x, y, 4, folder / "ray", plan=NeighbourPlan("exact"), engine=engine)
"""


def test_a_killed_driver_goes_on_from_its_blocks(large_sides: Sides, cluster: Cluster) -> None:
    folder = large_sides.folder
    command = [sys.executable, "-c", DRIVER, str(folder), cluster.address]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(blocks(folder / "ray")) < 3:
        assert driver.poll() is None, driver.communicate()[1].decode()
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    kept = blocks(folder / "ray")
    assert len(kept) < 25
    assert not (folder / "ray" / "x_to_y.rows.npy").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert blocks(folder / "ray").items() > kept.items()
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
    ids=["client", "no port", "wrong port", "nobody"],  # the free port is another in each worker
)
def test_an_address_without_a_cluster_is_one_line_at_once(address: str, message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(IndexingError) as error, ray_engine(address):
        pass
    assert message in str(error.value)
    assert time.monotonic() - begin < 30


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
