"""The process of one job, seen from the server: started, watched, killed with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embedsvc.jobs.kind import JobKind
from embedsvc.jobs.priority import thread_variables
from embedsvc.jobs.record import Failure, JobRequest
from embedsvc.jobs.store import LOG
from embedsvc.runtime import RuntimeOptions

_LOG_BYTES = 1024 * 1024
_TAIL_BYTES = 64 * 1024
_TAIL_LINES = 20
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class ModelChoice:
    """The model of a job: its folder, and how it is opened."""

    folder: str
    options: RuntimeOptions


@dataclass(frozen=True)
class JobSpec:
    """What the process is told."""

    folder: str
    request: JobRequest
    kind: JobKind
    model: ModelChoice
    threads: int
    niceness: int


@dataclass(frozen=True)
class Outcome:
    """What the process answers at its end: a summary of the result, or why there is none."""

    summary: dict[str, Any] | None = None
    failure: Failure | None = None


class JobProcess:
    """A running job. The process ends by itself when its control socket closes, that is with the server."""

    def __init__(self, spec: JobSpec) -> None:
        """Start the process; raise OSError when there can be none."""
        self._log = Path(spec.folder) / LOG
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self._control = Connection(ours.detach())
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(spec),
            )
        self.pid = self._popen.pid
        with contextlib.suppress(OSError):  # it died already
            self._control.send(spec)

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def outcome(self) -> Outcome | None:
        """Return what an ended process said; None when it died without a word."""
        with contextlib.suppress(EOFError, OSError):
            if self._control.poll():
                told = self._control.recv()
                return told if isinstance(told, Outcome) else None
        return None

    def ending(self) -> str:
        """Return how an ended process ended, in words."""
        code = self._popen.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with code {code}"

    def kill(self) -> None:
        """End the process and all that it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._control.close()

    def bound_log(self) -> None:
        """Cut a log that has become too long down to its end."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > _LOG_BYTES:
                tail = _tail(self._log)
                os.truncate(self._log, 0)  # the process appends
                with self._log.open("ab") as file:
                    file.write(b"(what came before was cut)\n" + tail)

    def last_lines(self) -> tuple[str, ...]:
        """Return the end of the log."""
        with contextlib.suppress(OSError):
            lines = _tail(self._log).decode("utf-8", "replace").splitlines()
            return tuple(line[:_LINE_CHARACTERS] for line in lines[-_TAIL_LINES:])
        return ()


_MAIN = "from embedsvc.jobs.worker import main; main()"


def _environment(spec: JobSpec) -> dict[str, str]:
    """Return the variables of the process: where it finds this very package, and how many threads it has."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if spec.model.options.device == "cpu" else {}
    return os.environ | thread_variables(spec.threads) | hidden | {"PYTHONPATH": path}


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()
