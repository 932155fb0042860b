"""The workers of one model: they take batches, give vectors, and survive what happens to the model.

A batch that fails is halved until the text that is to blame stands alone and gets the error. A batch
that was running when the model died runs again with nothing beside it; a hung one is given up.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import InvalidStateError
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, Encoding, Timings
from embedsvc.errors import EmbedsvcError, ModelFailedError, ModelLostError
from embedsvc.options import Priority
from embedsvc.scheduling.lanes import Batch, Job, Lane, Share

_log = logging.getLogger(__name__)
_INTERACTIVE_STREAK = 8  # after so many interactive batches a waiting bulk batch has its turn


@dataclass(frozen=True)
class SchedulerOptions:
    """Limits of one scheduler; batch_tokens defaults to the runtime's own."""

    max_queue_texts: int = 8192  # of each lane
    max_queue_s: float = 10.0  # expected wait above which interactive requests are refused
    interactive_texts: int = 32  # larger requests are bulk unless they say otherwise
    batch_tokens: int | None = None
    batch_timeout_s: float = 60.0


@dataclass(frozen=True)
class BatchReport:
    """What one batch was; for metrics."""

    lane: Priority
    requests: int
    texts: int
    tokens: int
    padded_tokens: int
    seconds: float


class Observer:
    """Told about every batch and every finished request; does nothing by itself."""

    def on_batch(self, report: BatchReport) -> None:
        """A batch was encoded."""

    def on_request(self, lane: Priority, timings: Timings) -> None:
        """A request got its vectors."""


class Workers:
    """Threads that encode what is added, interactive requests first. Safe to call from any thread."""

    def __init__(self, encoder: Encoder, options: SchedulerOptions, observer: Observer) -> None:
        self._encoder = encoder
        self._options = options
        self._observer = observer
        runtime = encoder.runtime
        self._count = runtime.workers
        share = Share(options.batch_tokens or runtime.batch_tokens, self._count, runtime.pads)
        self._changed = threading.Condition()
        self._interactive = Lane("interactive", share, window_batches=8)
        self._bulk = Lane("bulk", share, window_batches=16)
        self._suspects: deque[Batch] = deque()
        self._running: dict[threading.Thread, Batch | None] = {}
        self._waiting: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self._streak = 0
        self._last_success = -math.inf  # of time.monotonic
        self._last_failure = -math.inf
        self.seconds_per_text = 0.0

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self._count):
            self._start_worker()

    def stop(self) -> None:
        """Let the threads end when they are done with what they hold."""
        with self._changed:
            self._running.clear()
            self._changed.notify_all()

    def expect(self, job: Job) -> None:
        """Count the texts of a request that is going to be added, until they are taken or it ends."""
        with self._changed:
            job.waiting = len(job.texts)
            self._waiting[job.lane] += job.waiting
        job.future.add_done_callback(lambda _: self._forget(job))

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._waiting[job.lane] -= job.waiting
            job.waiting = 0

    def waiting_texts(self, lane: Priority) -> int:
        """Return the texts of a lane that no batch has taken yet."""
        return self._waiting[lane]

    def add(self, job: Job) -> None:
        """Queue all texts of a tokenized request."""
        job.raw = np.empty((len(job.texts), self._encoder.dimension), np.float32)
        job.missing = len(job.texts)
        if not job.texts:
            self._finish(job)
            return
        with self._changed:
            (self._interactive if job.lane == "interactive" else self._bulk).add(job)
            self._changed.notify_all()

    def worked_within(self, seconds: float) -> bool:
        """True when a batch went well in the last ``seconds`` and none has failed since."""
        fresh = time.monotonic() - self._last_success < seconds
        return fresh and self._last_success > self._last_failure

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._work, name="encode", daemon=True)
        self._running[thread] = None
        thread.start()

    def _work(self) -> None:
        me = threading.current_thread()
        while (batch := self._next_batch(me)) is not None:
            try:
                self._run(batch)
            except BaseException as error:  # a fault of ours must not end the worker
                _log.exception("a batch could not be handled")
                for job, _ in batch.rows:
                    fail(job, public(error, "an internal error"))

    def _next_batch(self, me: threading.Thread) -> Batch | None:
        """Wait for the next batch; None when the worker is no longer wanted."""
        with self._changed:
            if me in self._running:
                self._running[me] = None
                self._changed.notify_all()  # who waits to be alone, or for the end
            while True:
                if me not in self._running:
                    return None
                batch = self._pick()
                if batch is not None:
                    break
                self._changed.wait()
            self._running[me] = batch
            batch.begun = time.perf_counter()
            for job, _ in batch.rows:
                job.started = job.started or batch.begun
                if job.waiting and not batch.alone:  # a suspect was taken before
                    job.waiting -= 1
                    self._waiting[job.lane] -= 1
            return batch

    def _pick(self) -> Batch | None:
        """Return the batch to run now: suspects alone, then interactive, then bulk."""
        others = [batch for batch in self._running.values() if batch is not None]
        if self._suspects:
            return None if others else self._suspects.popleft()
        if any(batch.alone for batch in others):
            return None
        bulk_turn = self._streak >= _INTERACTIVE_STREAK and bool(self._bulk)
        batch = None if bulk_turn else self._interactive.next_batch()
        self._streak = self._streak + 1 if batch else 0
        return batch or self._bulk.next_batch()

    def _run(self, batch: Batch) -> None:
        batch.rows = [(job, row) for job, row in batch.rows if not job.future.done()]
        if not batch.rows:
            return
        texts = [job.prepared.texts[row] for job, row in batch.rows]
        begin = time.perf_counter()
        try:
            raw = self._encoder.runtime.embed(texts)
            if raw.shape != (len(texts), self._encoder.dimension):
                raise ModelFailedError(f"the model gave vectors of shape {raw.shape} for {len(texts)} texts")
        except ModelLostError as error:
            self._last_failure = time.monotonic()
            self._isolate(batch, error)
        except BaseException as error:
            self._last_failure = time.monotonic()
            self._split(batch, error)
        else:
            self._deliver(batch, raw, time.perf_counter() - begin)

    def _split(self, batch: Batch, error: BaseException) -> None:
        """Encode the halves of a failed batch; a text that fails alone is to blame."""
        if len(batch.rows) > 1:
            for half in batch.halves():
                self._run(half)
            return
        ((job, row),) = batch.rows
        _log.error("the model failed on input[%d] of a request", job.first + row, exc_info=error)
        fail(job, ModelFailedError(f"the model failed to encode input[{job.first + row}]", param="input"))

    def _isolate(self, batch: Batch, error: ModelLostError) -> None:
        """Queue a batch that was running when the model died: it may be to blame, so it runs alone."""
        _log.error("%s; %d texts were being encoded", error.message, len(batch.rows))
        if error.fatal:
            for job, _ in batch.rows:
                fail(job, error)
            return
        if batch.alone and len(batch.rows) == 1:
            ((job, row),) = batch.rows
            fail(job, ModelFailedError(f"the model died on input[{job.first + row}]", param="input"))
            return
        parts = batch.halves() if batch.alone else (batch,)
        for part in parts:
            part.alone = True
        with self._changed:
            self._suspects.extend(parts)

    def _deliver(self, batch: Batch, raw: NDArray[np.float32], seconds: float) -> None:
        """Give every request its vectors of this batch, and the finished ones their answer."""
        broken = set(np.flatnonzero(~np.isfinite(raw).all(axis=1)).tolist())
        if broken:
            self._last_failure = time.monotonic()
        else:
            self._last_success = time.monotonic()
        places: dict[Job, tuple[list[int], list[int]]] = {}
        for place, (job, row) in enumerate(batch.rows):
            if place in broken:
                what = f"the model gave a vector that is not finite for input[{job.first + row}]"
                fail(job, ModelFailedError(what, param="input"))
            sources, targets = places.setdefault(job, ([], []))
            sources.append(place)
            targets.append(row)
        finished = []
        for job, (sources, targets) in places.items():
            job.raw[targets] = raw[sources]
        with self._changed:
            for job, (_, targets) in places.items():
                job.missing -= len(targets)
                if not job.missing:
                    finished.append(job)
            per_text = seconds / len(batch.rows) / self._count
            self.seconds_per_text = 0.9 * self.seconds_per_text + 0.1 * per_text
        for job in finished:
            self._finish(job)
        tokens = batch.tokens
        padded = batch.padded_tokens if self._encoder.runtime.pads else tokens
        self._observer.on_batch(
            BatchReport(batch.lane, len(places), len(batch.rows), tokens, padded, seconds)
        )

    def _finish(self, job: Job) -> None:
        try:
            vectors = self._encoder.finish(job.raw, job.options)
        except Exception as error:
            fail(job, error)
            return
        now = time.perf_counter()
        started = job.started or now
        timings = Timings(job.queued - job.arrived, started - job.queued, now - started, now - job.arrived)
        encoding = Encoding(vectors, job.prepared.tokens, job.prepared.truncated, timings)
        try:
            job.future.set_result(encoding)
        except InvalidStateError:  # cancelled meanwhile
            return
        self._observer.on_request(job.lane, timings)

    def replace_hung(self) -> None:
        """Give up batches that have run for longer than ``batch_timeout_s``; new workers take over.

        A runtime in a process of its own notices by itself; this is for those that share ours, whose
        stuck thread can only be abandoned.
        """
        oldest = time.perf_counter() - self._options.batch_timeout_s
        given_up: list[Batch] = []
        with self._changed:
            for thread, batch in list(self._running.items()):
                if batch is not None and batch.begun < oldest:
                    del self._running[thread]
                    self._start_worker()
                    given_up.append(batch)
            self._changed.notify_all()
        for batch in given_up:
            _log.error("a batch of %d texts hangs; another worker takes over", len(batch.rows))
            for job, _ in batch.rows:
                fail(job, ModelLostError("the model hangs on this input; another worker takes over"))


def fail(job: Job, error: BaseException) -> None:
    """Give the caller an error, unless it has its answer or has gone."""
    try:
        job.future.set_exception(error)
    except InvalidStateError:
        return


def public(error: BaseException, message: str) -> EmbedsvcError:
    """Return an error to show: our own as it is, any other one as the cause of a plain message."""
    if isinstance(error, EmbedsvcError):
        return error
    shown = ModelFailedError(message)
    shown.__cause__ = error
    return shown
