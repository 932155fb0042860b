"""Jobs on disk: ``<data_dir>/jobs/<id>/``. The files are the truth; any number of servers may read them.

request.json    what was asked for
record.json     how it stands; replaced whole at each change, by the one server that runs jobs
inputs/         what was uploaded
work/           what the job needs to go on after an end at any moment
result/         what it found
progress.json, log, lock (held by the process of the job)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from embedsvc.errors import NotFoundError, StorageError
from embedsvc.jobs.progress import PROGRESS, Progress, read_progress
from embedsvc.jobs.record import JobRecord, JobRequest
from embedsvc.textfiles import atomic_write

Kept = TypeVar("Kept", bound=BaseModel)
Signal = Literal["cancel", "resume"]
INPUTS, WORK, RESULT, LOG, JOB_LOCK = "inputs", "work", "result", "log", "lock"
RESULT_LINES = f"{RESULT}/result.jsonl"
_ID = re.compile(r"job-[0-9a-f]{20}")
_SIGNAL = re.compile(rf"({_ID.pattern})\.(cancel|resume)")
_DRAFT, _TRASH, _SIGNALS, _LOCK = ".draft-", ".deleted-", ".signals", ".lock"
_RESERVE, _RESERVE_BYTES = "reserve", 64 * 1024  # let go when the disk is full: the end can be written then


@dataclass(frozen=True)
class Job:
    """All that is known of a job at one moment."""

    request: JobRequest
    record: JobRecord
    progress: Progress


class JobStore:
    """The jobs of a data folder. Safe with several threads and processes."""

    def __init__(self, data_dir: Path) -> None:
        """Open the folder, made if need be; raise StorageError when that cannot be."""
        self.folder = data_dir / "jobs"
        with _explained(f"{self.folder} cannot be used"):
            (self.folder / _SIGNALS).mkdir(parents=True, exist_ok=True)

    def path(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.folder / job_id

    def ids(self) -> list[str]:
        """Return the ids of all jobs, oldest first."""
        return sorted(entry for entry in os.listdir(self.folder) if _ID.fullmatch(entry))  # noqa: PTH208

    def request(self, job_id: str) -> JobRequest:
        """Return what was asked for; raise NotFoundError or StorageError."""
        return self._read(job_id, "request.json", JobRequest)

    def record(self, job_id: str) -> JobRecord:
        """Return how a job stands; raise NotFoundError or StorageError."""
        return self._read(job_id, "record.json", JobRecord)

    def job(self, job_id: str) -> Job:
        """Return all that is known of a job; raise NotFoundError or StorageError."""
        return Job(self.request(job_id), self.record(job_id), read_progress(self.path(job_id)))

    def _read(self, job_id: str, name: str, kind: type[Kept]) -> Kept:
        unknown = NotFoundError(f"no job {job_id[:80]!r}", param="id")
        if not _ID.fullmatch(job_id):
            raise unknown
        path = self.path(job_id) / name
        try:
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise unknown from error
        except (OSError, ValidationError) as error:
            raise StorageError(f"{path} is damaged: {error}") from error

    def write(self, job_id: str, record: JobRecord) -> None:
        """Replace the record of a job, durably; raise OSError when that cannot be."""
        try:
            self._write(job_id, record)
        except OSError:
            (self.path(job_id) / _RESERVE).unlink(missing_ok=True)
            self._write(job_id, record)

    def _write(self, job_id: str, record: JobRecord) -> None:
        with atomic_write(self.path(job_id) / "record.json") as file:
            file.write(record.model_dump_json().encode())

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Lend a folder for a job to be; what has not been admitted at the end is deleted."""
        folder = self.folder / f"{_DRAFT}{uuid.uuid4().hex}"
        with _explained(f"{folder} cannot be made"):
            (folder / INPUTS).mkdir(parents=True)
        try:
            with _locked(folder):  # tells it from what a killed server left
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def admit(self, draft: Path, request: JobRequest) -> None:
        """Make the job in a draft a job that will run, durably; raise StorageError."""
        queued = JobRecord().becoming("queued", request.created)
        with _explained("the job cannot be stored"):
            for name in (WORK, RESULT):
                (draft / name).mkdir()
            (draft / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
            for name, kept in (("request.json", request), ("record.json", queued)):
                with atomic_write(draft / name) as file:
                    file.write(kept.model_dump_json().encode())
            _sync(draft)
            draft.rename(self.path(request.id))
            _sync(self.folder)

    def signal(self, job_id: str, signal: Signal) -> None:
        """Ask the server that runs jobs, which may be another, to cancel or to resume one."""
        with _explained(f"{job_id} cannot be told to {signal}"):
            (self.folder / _SIGNALS / f"{job_id}.{signal}").touch()

    def take_signals(self) -> list[tuple[str, str]]:
        """Return the jobs to be cancelled or resumed, and forget them."""
        taken = []
        for name in os.listdir(self.folder / _SIGNALS):  # noqa: PTH208
            (self.folder / _SIGNALS / name).unlink(missing_ok=True)
            if found := _SIGNAL.fullmatch(name):
                taken.append((found[1], found[2]))
        return taken

    def reset(self, job_id: str) -> None:
        """Forget the progress of an attempt before the next, and put by again what the last one needed."""
        (self.path(job_id) / PROGRESS).unlink(missing_ok=True)
        reserve = self.path(job_id) / _RESERVE
        if not reserve.exists():
            reserve.write_bytes(bytes(_RESERVE_BYTES))

    def empty(self, job_id: str) -> None:
        """Delete all that a job holds but what was asked for and how it ended."""
        for name in (INPUTS, WORK, RESULT):
            shutil.rmtree(self.path(job_id) / name, ignore_errors=True)
        for name in (PROGRESS, LOG, JOB_LOCK, _RESERVE):
            (self.path(job_id) / name).unlink(missing_ok=True)

    def delete(self, job_id: str) -> None:
        """Delete a job with all its files; raise NotFoundError or StorageError."""
        self.record(job_id)
        trash = self.folder / f"{_TRASH}{uuid.uuid4().hex}"
        with _explained(f"{job_id} cannot be deleted"):
            self.path(job_id).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def only_runner(self) -> Iterator[bool]:
        """Yield True when no other server runs the jobs of this folder, which none does until the end."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context((self.folder / _LOCK).open("a"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def sweep(self) -> None:
        """Delete what a killed server left of uploads and deletions."""
        for left in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self.folder.glob(f"{_DRAFT}*"):
            with contextlib.suppress(OSError), _locked(left):
                shutil.rmtree(left, ignore_errors=True)


def new_job_id() -> str:
    """Return an id nobody can guess; ids sort by the time they were made."""
    return f"job-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder as one that is in use; raise OSError when somebody else does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror}") from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
