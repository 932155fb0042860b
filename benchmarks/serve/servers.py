"""Servers as real processes on 127.0.0.1: started, waited for, weighed, stopped."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.load import Stream, StreamResult, run_load

ROOT = Path(__file__).parents[2]
_START_S = 300.0
_STOP_S = 20.0
_PORT = "{port}"


@dataclass(frozen=True)
class Recipe:
    """How a server is started; ``{port}`` in the command stands for its port."""

    name: str
    command: tuple[str, ...]
    path: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


def ours(name: str, *options: str, python: Path = Path(sys.executable), folder: Path = ROOT) -> Recipe:
    """Return the recipe of our server: this checkout's, or the one installed beside ``python``."""
    command = (str(python), "-m", "embedsvc", "serve", "--port", _PORT, "--log-level", "warning", *options)
    return Recipe(name, command, "/v1/embeddings", folder)


def infinity_torch(venv: Path, model: Path) -> Recipe:
    """Return infinity with its torch engine; the model is the folder of the PyPI package."""
    options = ("--engine", "torch", "--no-bettertransformer", "--model-id", str(model))
    return _infinity("infinity torch", venv, venv, options)


def infinity_onnx(venv: Path, export: Path) -> Recipe:
    """Return infinity with its ONNX engine; it must run inside the export, and be told how to pool."""
    options = ("--engine", "optimum", "--pooling-method", "mean", "--model-id", ".")
    return _infinity("infinity ONNX", venv, export, options)


def _infinity(name: str, venv: Path, folder: Path, options: Sequence[str]) -> Recipe:
    address = ("--device", "cpu", "--host", "127.0.0.1", "--port", _PORT)
    command = (str(venv.absolute() / "bin" / "infinity_emb"), "v2", *options, *address)
    threads = str(len(os.sched_getaffinity(0)))
    environment = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": threads}
    return Recipe(name, command, "/embeddings", folder, environment)


class Server:
    """A running server."""

    def __init__(self, recipe: Recipe, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = recipe.name
        self.port = port
        self._path = recipe.path
        self._process = process
        self.first_vector_s = float("nan")  # from the start of the process

    def load(self, *streams: Stream) -> list[StreamResult]:
        """Run the load client against the server."""
        return run_load(self.port, self._path, streams)

    def texts_per_second(self, requests: Sequence[Sequence[str]], connections: int) -> StreamResult:
        """Send requests as fast as the connections take them; raise RuntimeError when one fails."""
        (result,) = self.load(Stream(requests, connections))
        if result.errors:
            raise RuntimeError(f"{self.name} answered {result.statuses}")
        return result

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors (n, dimension)."""
        body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self._path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_START_S) as answer:
            items = json.load(answer)["data"]
        return np.stack([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items])

    def get(self, path: str) -> str:
        """Return the body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=_START_S) as answer:
            return str(answer.read().decode())

    @property
    def workers(self) -> int:
        """Batches that our server's model works on side by side."""
        return int(json.loads(self.get("/v1/models"))["data"][0]["workers"])

    def memory(self) -> tuple[float, float]:
        """Return resident and proportional MiB of the process and its children together."""
        pids = [self._process.pid, *_descendants(self._process.pid)]
        rollups = [_rollup(pid) for pid in pids]
        return sum(rss for rss, _ in rollups) / 1024, sum(pss for _, pss in rollups) / 1024

    def cpu_seconds(self) -> float:
        """Return the processor time that the process and its children have used so far."""
        pids = [self._process.pid, *_descendants(self._process.pid)]
        ticks = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_ready(self, log: Path) -> None:
        """Return when the server has given a vector; raise RuntimeError with the log's end."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < _START_S and self._process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.embed(["ready"])
                self.first_vector_s = time.perf_counter() - begin
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start: {log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End the process and whatever it has started."""
        children = _descendants(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(recipe: Recipe) -> Iterator[Server]:
    """Start a server, yield it when it has given a vector, and stop it whatever happens."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        port = _free_port()
        command = [part.replace(_PORT, str(port)) for part in recipe.command]
        environment = os.environ | {"EMBEDSVC_DATA_DIR": temporary} | recipe.environment
        log = Path(temporary) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=recipe.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        server = Server(recipe, port, process)
        stack.callback(server.stop)
        server.wait_ready(log)
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            children += [child, *_descendants(child)]
    return children


def _rollup(pid: int) -> tuple[int, int]:
    """Return resident and proportional KiB of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in lines)}
    return sizes["Rss"], sizes["Pss"]
