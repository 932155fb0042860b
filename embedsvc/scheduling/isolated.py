"""A runtime in a process of its own: when it dies or hangs, only its batches are lost.

Texts are tokenized here; token ids go through a socket, one per worker, and vectors come back. The
process ends by itself when its control socket closes, that is when this process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc import errors
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.encoders.static_table import StaticTableRuntime
from embedsvc.errors import EmbedsvcError, ModelError, ModelLostError
from embedsvc.model_folder import ModelFolder
from embedsvc.runtime import PreparedText, RuntimeOptions, choose_runtime

_log = logging.getLogger(__name__)
Work = Literal["embed", "embed_tokens"]
_START_S = 600.0  # a large model on a slow disk
_RETRY_S = 1.0  # a start that has failed is not tried again for so long: the queue fails at once


@dataclass(frozen=True)
class ModelSpec:
    """What the process is told: the folder, how to open it, how many batches may run side by side."""

    folder: str
    options: RuntimeOptions
    workers: int | None


@dataclass(frozen=True)
class ModelFacts:
    """What the process answers once the model is open."""

    name: str
    dimension: int
    batch_tokens: int
    pads: bool
    workers: int


@dataclass(frozen=True)
class Refusal:
    """An error that the process met: the name of its class, and what it says."""

    kind: str
    message: str


class IsolatedRuntime:
    """A `Runtime` whose `embed` runs in another process; started anew when it has died."""

    def __init__(
        self,
        folder: ModelFolder,
        options: RuntimeOptions,
        *,
        workers: int | None = None,
        batch_timeout_s: float = 60.0,
    ) -> None:
        choose_runtime(folder, options)
        self._inputs: SequenceInputs | StaticTableRuntime = (
            StaticTableRuntime(folder) if folder.is_static else SequenceInputs(folder)
        )
        self._timeout_s = batch_timeout_s
        self._lock = threading.Lock()
        self._spec = ModelSpec(str(folder.path), options, workers)
        self._process = _start(self._spec, batch_timeout_s)
        self._no_start: ModelLostError | None = None
        self._retry_at = 0.0  # of time.monotonic
        self._closed = False
        facts = self._process.facts
        self.name = facts.name
        self.dimension = facts.dimension
        self.batch_tokens = facts.batch_tokens
        self.pads = facts.pads
        self.workers = facts.workers
        self.max_tokens = self._inputs.max_tokens
        self.special_tokens = self._inputs.special_tokens
        self.restarts = 0

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        return self._inputs.tokenize(texts)

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors; raise ModelLostError when the process dies or hangs."""
        vectors: NDArray[np.float32] = self._ask("embed", batch)
        return vectors

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return (tokens, dim) for each text; raise ModelLostError when the process dies or hangs."""
        vectors: list[NDArray[np.float32]] = self._ask("embed_tokens", batch)
        return vectors

    def _ask(self, what: Work, batch: Sequence[PreparedText]) -> Any:
        answer = self._living().ask(what, batch)
        if isinstance(answer, Refusal):
            raise _rebuilt(answer)
        return answer

    @property
    def resident_bytes(self) -> int:
        """Return the memory that the process holds, 0 where that cannot be known."""
        return self._process.resident_bytes()

    @property
    def lost(self) -> bool:
        """True when the process has died; the next batch starts it anew."""
        return self._process.lost

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            self._process.end()

    def _living(self) -> _ModelProcess:
        with self._lock:
            if self._closed:
                raise ModelLostError("the model was unloaded")
            if not self._process.lost:
                return self._process
            if self._no_start and time.monotonic() < self._retry_at:
                raise self._no_start
            self._process.end()
            _log.warning("starting the model's process anew")
            spec = ModelSpec(self._spec.folder, self._spec.options, self.workers)
            try:
                self._process = _start(spec, self._timeout_s)
            except EmbedsvcError as error:
                message = f"the model's process cannot be started: {error.message}"
                self._no_start = ModelLostError(message, fatal=True)
                self._retry_at = time.monotonic() + _RETRY_S
                raise self._no_start from error
            self._no_start = None
            self.restarts += 1
            return self._process


def _start(spec: ModelSpec, timeout_s: float) -> _ModelProcess:
    try:
        return _ModelProcess(spec, timeout_s)
    except OSError as error:  # no file descriptors, no memory
        raise ModelError(f"no process can be started for {spec.folder}: {error.strerror}") from error


class _ModelProcess:
    """One life of the process."""

    def __init__(self, spec: ModelSpec, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        self._timeout_s = timeout_s
        self._killed = False
        # A session of its own: Ctrl-C is for the server, which then closes the control socket.
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_fileno() else subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": _python_path()},
        )
        self.pid = self._popen.pid
        theirs.close()
        self._control_socket = ours
        self._control = Connection(os.dup(ours.fileno()))
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        try:
            self.facts = self._open(spec)
        except BaseException:
            self.end()
            raise

    def _open(self, spec: ModelSpec) -> ModelFacts:
        try:
            self._control.send(spec)
            if not self._control.poll(_START_S):
                raise ModelError(f"{spec.folder} was not opened within {_START_S:g} s")
            answer = self._control.recv()
            if not isinstance(answer, ModelFacts):
                raise _rebuilt(answer)
            for _ in range(answer.workers):
                ours, theirs = socket.socketpair()
                with theirs:
                    socket.send_fds(self._control_socket, [b"c"], [theirs.fileno()])
                _limit_waiting(ours, self._timeout_s)
                self._free.put(Connection(ours.detach()))
            return answer
        except (EOFError, ConnectionError) as error:
            code = self._popen.wait(10)
            raise ModelError(f"the process that opens {spec.folder} ended with code {code}") from error

    def ask(self, what: Work, batch: Sequence[PreparedText]) -> Any:
        connection = self._free.get()
        try:
            connection.send((what, [(text.ids, text.prompt_tokens) for text in batch]))
            answer = connection.recv()
        except BlockingIOError as error:
            self.kill()
            raise ModelLostError(
                f"the model did not finish {len(batch)} texts in batch_timeout_s = {self._timeout_s:g} s; "
                "it is started anew",
                fatal=True,
            ) from error
        except (EOFError, OSError) as error:
            self.kill()
            raise ModelLostError(f"the model's process {self.pid} died") from error
        finally:
            self._free.put(connection)
        return answer

    @property
    def lost(self) -> bool:
        return self._killed or self._popen.poll() is not None

    def kill(self) -> None:
        self._killed = True
        self._popen.kill()

    def end(self) -> None:
        self.kill()
        self._popen.wait()
        self._control.close()
        self._control_socket.close()

    def resident_bytes(self) -> int:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0


def _limit_waiting(connection: socket.socket, seconds: float) -> None:
    """Let reading and writing raise BlockingIOError after so long: a stopped process does not read either."""
    whole, rest = divmod(max(round(seconds * 1e6), 1), 1_000_000)
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, rest))


_MAIN = "from embedsvc.scheduling.model_process import main; main()"


def _python_path() -> str:
    """Return where the process finds this very package, wherever it runs."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))


def _has_fileno() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.fileno()
        return True
    return False


def _rebuilt(refusal: Refusal) -> Exception:
    """Return the error that the process met: of our own tree by its class, any other as a plain one."""
    found = getattr(errors, refusal.kind, None)
    if isinstance(found, type) and issubclass(found, EmbedsvcError):
        error = found.__new__(found)
        EmbedsvcError.__init__(error, refusal.message)
        return error
    return RuntimeError(f"{refusal.kind}: {refusal.message}")
