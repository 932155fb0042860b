"""The one who runs jobs: a thread of the server that starts their processes, in order, and keeps the records.

Of several servers on one data folder, one runs the jobs; when it ends, another takes over.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from embedsvc.errors import EmbedsvcError
from embedsvc.jobs.job_process import JobProcess, JobSpec, ModelChoice, Outcome
from embedsvc.jobs.kinds import kind_of
from embedsvc.jobs.progress import Progress, read_progress
from embedsvc.jobs.record import Failure, JobRecord, State
from embedsvc.jobs.store import WORK, JobStore

_log = logging.getLogger(__name__)
_BUSY_S, _IDLE_S = 0.2, 1.0  # between looks at processes, and at what other servers ask for
_MOST_DEATHS = 3
_PAUSE_S = 2.0  # before the next attempt, times the deaths so far
_PATIENCE_S = 10.0  # after a start that the disk or the system did not allow


@dataclass(frozen=True)
class RunnerOptions:
    """How many jobs run side by side, their threads and niceness; how long ended ones are kept."""

    max_running: int
    threads: int
    niceness: int
    retention_s: float | None = None


@dataclass
class _Running:
    process: JobProcess
    told: int = 0  # stages noted as events


@dataclass
class _Known:
    """A job as this runner knows it; ``is_stale``: the record on disk is older, the disk was full."""

    record: JobRecord
    not_before: float = 0.0  # of time.monotonic
    is_stale: bool = False


class JobRunner:
    """Runs the jobs of a store, if no other server does."""

    def __init__(
        self, store: JobStore, find_model: Callable[[str], ModelChoice], options: RunnerOptions
    ) -> None:
        """``find_model`` says how the model of a name is opened; it raises an EmbedsvcError for another."""
        self._store = store
        self._find_model = find_model
        self._options = options
        self._known: dict[str, _Known] = {}
        self._running: dict[str, _Running] = {}
        self._counts = Counter[State]()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._live, name="jobs")

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once for what is new."""
        self._wake.set()

    def count(self, state: State) -> int:
        """Return how many jobs are in a state, as far as this server knows."""
        return self._counts[state]

    def close(self) -> None:
        """End the processes of running jobs; the next start goes on with them."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._closing:
            with self._store.only_runner() as is_runner:
                if is_runner:
                    self._run()
            self._count()
            self._sleep(_IDLE_S)

    def _run(self) -> None:
        """Run jobs until the server closes."""
        self._known.clear()
        self._store.sweep()
        try:
            while not self._closing:
                self._attempt()
                self._sleep(_BUSY_S if self._running else _IDLE_S)
        finally:
            for running in self._running.values():
                running.process.kill()
            self._running.clear()

    def _sleep(self, seconds: float) -> None:
        if not self._closing:  # the wake that told of it may have been taken
            self._wake.wait(seconds)
            self._wake.clear()

    def _attempt(self) -> None:
        """Do what is to be done; whatever goes wrong, the runner goes on."""
        try:
            self._look()
            self._obey()
            self._watch()
            self._start_next()
            self._expire()
            self._count()
        except Exception:
            _log.exception("running jobs failed; it is tried again")

    def _look(self) -> None:
        """Learn of new jobs; one that ran when its server ended is queued again."""
        present = self._store.ids()
        for job_id in self._known.keys() - set(present):
            del self._known[job_id]
            if job_id in self._running:  # somebody took its folder away
                self._running.pop(job_id).process.kill()
        for job_id in present:
            if job_id in self._known:
                continue
            try:
                self._known[job_id] = _Known(self._store.record(job_id))
            except EmbedsvcError as error:
                _log.error("%s", error.message)
                failure = Failure(status=error.status, code=error.code, message=error.message)
                self._known[job_id] = _Known(JobRecord(state="failed", failure=failure))
            if self._known[job_id].record.state == "running":
                _log.info("%s goes on after a restart", job_id)
                self._become(job_id, "queued")
        for job_id, known in self._known.items():
            if known.is_stale:
                self._save(job_id, known.record)

    def _obey(self) -> None:
        for job_id, signal in self._store.take_signals():
            known = self._known.get(job_id)
            if known is None:
                continue
            if signal == "cancel" and not known.record.has_ended:
                self._cancel(job_id)
            if signal == "resume" and known.record.state == "failed":
                known.not_before = 0.0
                self._become(job_id, "queued", ended=None, deaths=0, failure=None, log_tail=())

    def _cancel(self, job_id: str) -> None:
        running = self._running.pop(job_id, None)
        if running:
            running.process.kill()
        self._store.empty(job_id)
        self._become(job_id, "cancelled", ended=time.time())

    def _watch(self) -> None:
        for job_id, running in list(self._running.items()):
            ended = running.process.has_ended  # before its last words are read
            self._note_stages(job_id, running)
            running.process.bound_log()
            if ended:
                self._end(job_id, running.process)

    def _note_stages(self, job_id: str, running: _Running) -> None:
        progress: Progress = read_progress(self._store.path(job_id))
        record = self._known[job_id].record
        finished = progress.stages[:-1]
        for stage in finished[running.told :]:
            told = {"stage": stage.stage, "done": stage.done, "seconds": round(stage.seconds, 3)}
            record = record.noting(time.time(), "stage", told)
        if finished[running.told :]:
            running.told = len(finished)
            self._save(job_id, record)

    def _end(self, job_id: str, process: JobProcess) -> None:
        outcome = process.outcome()
        process.kill()  # what it may have left behind
        del self._running[job_id]
        if outcome is None:
            self._bury(job_id, process)
        elif outcome.failure:
            self._fail(job_id, outcome.failure, process.last_lines())
        else:
            self._finish(job_id, outcome)

    def _finish(self, job_id: str, outcome: Outcome) -> None:
        shutil.rmtree(self._store.path(job_id) / WORK, ignore_errors=True)
        self._become(job_id, "done", ended=time.time(), summary=outcome.summary)

    def _bury(self, job_id: str, process: JobProcess) -> None:
        """Try again after a death that the job could not tell of; not for ever."""
        known = self._known[job_id]
        deaths = known.record.deaths + 1
        told = f"the process of the job {process.ending()}"
        _log.warning("%s: %s", job_id, told)
        if deaths < _MOST_DEATHS:
            known.not_before = time.monotonic() + _PAUSE_S * deaths
            retry = known.record.noting(time.time(), "retry", {"message": told, "deaths": deaths})
            self._known[job_id].record = retry.model_copy(update={"deaths": deaths})
            self._become(job_id, "queued")
            return
        failure = Failure(
            status=500,
            code="job_died",
            message=f"{told}, as it did {deaths - 1} times before; its log ends with log_tail",
        )
        self._fail(job_id, failure, process.last_lines())

    def _fail(self, job_id: str, failure: Failure, log_tail: tuple[str, ...] = ()) -> None:
        _log.warning("%s failed: %s", job_id, failure.message)
        self._become(job_id, "failed", ended=time.time(), failure=failure, log_tail=log_tail)

    def _start_next(self) -> None:
        for job_id, known in list(self._known.items()):
            if len(self._running) >= self._options.max_running:
                return
            if known.record.state == "queued" and time.monotonic() >= known.not_before:
                self._start(job_id, known)

    def _start(self, job_id: str, known: _Known) -> None:
        try:
            spec = self._spec(job_id)
        except EmbedsvcError as error:
            self._fail(job_id, _told(error))
            return
        try:
            self._store.reset(job_id)
            running = known.record.becoming("running", time.time())
            running = running.model_copy(update={"started": running.started or time.time()})
            self._store.write(job_id, running)
            known.record = running
            self._running[job_id] = _Running(JobProcess(spec))
        except OSError as error:
            _log.error("%s cannot be started: %s; it is tried again", job_id, error.strerror)
            known.not_before = time.monotonic() + _PATIENCE_S
            if known.record.state == "running":
                self._become(job_id, "queued")

    def _spec(self, job_id: str) -> JobSpec:
        request = self._store.request(job_id)
        return JobSpec(
            folder=str(self._store.path(job_id)),
            request=request,
            kind=kind_of(request.kind),
            model=self._find_model(request.model),
            threads=self._options.threads,
            niceness=self._options.niceness,
        )

    def _expire(self) -> None:
        if self._options.retention_s is None:
            return
        for job_id, known in list(self._known.items()):
            ended = known.record.ended
            if ended is not None and time.time() > ended + self._options.retention_s:
                _log.info("%s has expired and is deleted", job_id)
                self._store.delete(job_id)
                del self._known[job_id]

    def _become(self, job_id: str, state: State, **changes: object) -> None:
        self._save(job_id, self._known[job_id].record.becoming(state, time.time(), **changes))

    def _save(self, job_id: str, record: JobRecord) -> None:
        """Keep a record; while the disk takes nothing it is kept here, and written later."""
        known = self._known[job_id]
        known.record, was_stale = record, known.is_stale
        try:
            self._store.write(job_id, record)
            known.is_stale = False
        except FileNotFoundError:  # the job was deleted
            known.is_stale = False
        except OSError as error:
            known.is_stale = True
            if not was_stale:
                _log.error("the record of %s cannot be written: %s", job_id, error.strerror)

    def _count(self) -> None:
        self._counts = Counter(known.record.state for known in self._known.values())


def _told(error: EmbedsvcError) -> Failure:
    return Failure(status=error.status, code=error.code, message=error.message, param=error.param)
