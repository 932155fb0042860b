"""A real server that is mistreated: a model that obeys certain words, a log that is read, raw sockets."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.server_process import MAIN, ROOT, Server
from training.static_export import write_static_folder

# What a process with this folder in PYTHONPATH runs first, the model's own process too.
OBEDIENT = """
import os, signal, time
from embedsvc.encoders import static_table
words = ["die", "hang", "fail", "nan", "eat", "slow"]
embed = static_table.StaticTableRuntime.embed
def obey(self, batch):
    die, hang, fail, nan, eat, slow = map(tuple, self.tokenize(words))
    given = [tuple(text.ids) for text in batch]
    if die in given:
        os.kill(os.getpid(), signal.SIGKILL)
    if hang in given:
        time.sleep(1000)
    if fail in given:
        raise RuntimeError("secret details")
    if eat in given:
        bytearray(1 << 46)
    time.sleep(0.01 * given.count(slow))
    vectors = embed(self, batch)
    vectors[[row == nan for row in given]] = float("nan")
    return vectors
static_table.StaticTableRuntime.embed = obey
"""


def obedient(folder: Path) -> dict[str, str]:
    """Return the environment of a server whose model obeys: die, hang, fail, nan, eat (memory), slow."""
    (folder / "sitecustomize.py").write_text(OBEDIENT)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def small_model(folder: Path) -> Path:
    """Write a static model that knows a word for each order and is open in no time."""
    words = ["[UNK]", "die", "hang", "fail", "nan", "eat", "slow", "one", "two", "word", "other"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    table = np.random.default_rng(0).standard_normal((len(words), 384)).astype(np.float32)
    write_static_folder(folder, table, tokenizer.to_str(), matryoshka_dimensions=[], dtype="float32")
    return folder


def small(folder: Path) -> tuple[str, ...]:
    """Return the options of a server with a small model, under the bundled one's name, and its data here."""
    model = small_model(folder / "model")
    return "--model", f"embedsvc-default={model}", "--data-dir", str(folder / "data")


class TestedServer(Server):
    """A server with its log, its model's processes, its metrics and its port at hand."""

    __test__ = False

    def __init__(
        self,
        *options: str,
        code: str = MAIN,
        variables: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(*options, code=code, variables=variables, limits=limits)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log)  # a full pipe would stop the server
        self._reader.start()
        self._client = httpx.Client(base_url=self.url, timeout=60)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def model_pids(self) -> list[int]:
        """Return the pids of the models' processes."""
        listings = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for listing in listings for pid in listing.read_text().split()]

    def signal_model(self, which: signal.Signals) -> int:
        """Signal the model's process, which must run; return its pid. A killed one is gone afterwards."""
        (pid,) = self.model_pids()
        os.kill(pid, which)
        until(lambda: which != signal.SIGKILL or is_gone(pid))
        return pid

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def post(self, body: Any) -> httpx.Response:
        """Send a body to /v1/embeddings, bytes as they are; from any thread."""
        options = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": "application/json"}
        return self._client.post("/v1/embeddings", headers=headers, **options)

    def embed(self, *texts: str, **options: Any) -> httpx.Response:
        return self.post({"input": texts, "encoding_format": "base64", **options})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def talk(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes until the server closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_to_end(connection)

    def metric(self, line: str) -> float:
        """Return the value of a metric, named with its labels; 0 when nothing was counted yet."""
        found = [row for row in self.get("/metrics").text.splitlines() if row.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def stop(self) -> tuple[int, str, str]:
        """End it as an init system would; return exit status, standard output and the log."""
        self._client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        with self.process.stdout, self.process.stderr:
            output = self.process.stdout.read()
            self.process.wait(60)
            self._reader.join(60)
        return self.process.returncode, output, "".join(self.log)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except OSError:
        return True


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(1 << 16):
            received += chunk
    except ConnectionResetError:  # the server did not read all that was sent
        pass
    return received


def until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
