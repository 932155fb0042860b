"""The other side of `job_process`: the process that does one job and says how it went."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path

from embedsvc.encoder import Encoder, find_folder
from embedsvc.errors import EmbedsvcError, InvalidInputError, StorageError
from embedsvc.jobs.job_process import JobSpec, Outcome
from embedsvc.jobs.kind import JobTask
from embedsvc.jobs.kinds import options_of
from embedsvc.jobs.priority import give_way
from embedsvc.jobs.progress import PROGRESS, ProgressFile
from embedsvc.jobs.record import Failure
from embedsvc.jobs.store import JOB_LOCK, RESULT_LINES, WORK
from embedsvc.runtime import open_runtime

_PREDECESSOR_S = 30.0  # a killed process may take a moment to be gone


def main() -> None:
    """Do the job told on the control socket; end at once, with all that was started, when that closes."""
    control = Connection(int(sys.argv[1]))
    spec: JobSpec = control.recv()
    give_way(spec.niceness)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    threading.Thread(target=_end_with_server, args=[control], daemon=True).start()
    control.send(_outcome(spec))
    sys.stderr.flush()
    os._exit(0)  # nothing that a library left running shall keep the job from ending


def _end_with_server(control: Connection) -> None:
    try:
        control.recv()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _outcome(spec: JobSpec) -> Outcome:
    try:
        return _done(spec)
    except EmbedsvcError as error:
        traceback.print_exc()
        error.message = _without_paths(error.message, spec)
        return Outcome(failure=_failure(error))
    except MemoryError:
        traceback.print_exc()
        return Outcome(failure=_failure(StorageError("there is not enough memory for this job")))
    except OSError as error:
        traceback.print_exc()
        told = _storage_error(error)
        told.message = _without_paths(told.message, spec)
        return Outcome(failure=_failure(told))
    except Exception:
        traceback.print_exc()
        return Outcome(failure=Failure(status=500, code="internal_error", message="an internal error"))


def _done(spec: JobSpec) -> Outcome:
    folder = Path(spec.folder)
    with (folder / JOB_LOCK).open("a") as lock:
        _await(lock.fileno())
        progress = ProgressFile(folder / PROGRESS)
        task = JobTask(
            inputs={
                name: tuple(_input(folder, path) for path in paths)
                for name, paths in spec.request.inputs.items()
            },
            options=options_of(spec.kind, spec.request.options),
            work=folder / WORK,
            out=folder / RESULT_LINES,
            open_encoder=lambda: _encoder(spec),
            report=progress.report,
            threads=spec.threads,
        )
        summary = spec.kind.run(task)
        progress.write()
        return Outcome(summary=summary)


def _input(folder: Path, path: str) -> Path:
    """Return an uploaded file, or one below the jobs_root: the real path that it was found at, still."""
    real = (folder / path).resolve()
    if Path(path).is_absolute() and str(real) != path:
        raise InvalidInputError(f"{path} has become a link since the job was made")
    return real


def _await(lock: int) -> None:
    """Wait until no other process does this job."""
    deadline = time.monotonic() + _PREDECESSOR_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError("another process is at work on this job") from None
            time.sleep(0.05)


def _encoder(spec: JobSpec) -> Encoder:
    options = replace(spec.model.options, threads=spec.threads)
    folder = find_folder(Path(spec.model.folder), options)
    return Encoder(folder, open_runtime(folder, options))


def _without_paths(message: str, spec: JobSpec) -> str:
    """Return a message that calls files by the names that the client gave them."""
    for path in chain.from_iterable(spec.request.inputs.values()):
        whole = Path(spec.folder) / path
        message = message.replace(str(whole.absolute()), whole.name).replace(str(whole), whole.name)
    return message.replace(f"{Path(spec.folder).absolute()}/", "").replace(f"{spec.folder}/", "")


def _storage_error(error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError("the disk is full; free some space, then resume the job")
    return StorageError(f"{error.filename or 'a file'}: {error.strerror or error}")


def _failure(error: EmbedsvcError) -> Failure:
    return Failure(status=error.status, code=error.code, message=error.message, param=error.param)
