"""A Ray cluster on this machine for tests: small, silent, and gone at the end with all its processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()  # a killed test run
SMALL = ("--object-store-memory", str(100 << 20), "--disable-usage-stats", "--block")


@dataclass
class Cluster:
    """A head on 127.0.0.1, and the machines that join it."""

    port: int
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Run `ray start`, perhaps by way of another command."""
        command = [
            *_WITH_PARENT,
            *before,
            str(Path(sys.executable).with_name("ray")),
            "start",
            *arguments,
            *SMALL,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.processes.append(process)
        return process

    def join(self, cpus: int, *, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Add a machine."""
        return self.start("--address", self.address, "--num-cpus", str(cpus), before=before)

    def wait_for(self, machines: int) -> None:
        """Wait until so many machines are there; this process must be connected."""
        import ray

        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < machines:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)


@contextmanager
def ray_cluster(cpus: int = 2) -> Iterator[Cluster]:
    """Start a head with this many CPUs; at the end, end everything."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: names of sockets have a limit
    cluster = Cluster(free_port(), folder / "log")
    try:
        head = ("--head", "--port", str(cluster.port), "--include-dashboard=false", "--temp-dir", str(folder))
        cluster.start(*head, "--num-cpus", str(cpus), "--ray-client-server-port", str(free_port()))
        _wait_for_head(cluster)
        yield cluster
    finally:
        for process in cluster.processes:
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_head(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while "Ray runtime started" not in cluster.log.read_text():
        assert cluster.processes[0].poll() is None, cluster.log.read_text()
        assert time.monotonic() < deadline, cluster.log.read_text()
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """End `ray start --block` and what it started: in order, and after half a minute by force."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Return a port that is free and outside the range of Ray's workers (10002 to 19999)."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port > 20_000:
            return port


def processes_of_ray() -> set[int]:
    """Return the ids of all of Ray's processes on this machine."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if any(name in command for name in (b"raylet", b"gcs_server", b"ray::", b"ray/_private")):
            found.add(int(folder.name))
    return found
