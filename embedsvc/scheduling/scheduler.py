"""One model, many callers: bounded queues with two lanes, batches by token budget, workers that survive.

    encode() -> admit or refuse -> tokenize -> lane -> window sorted by length -> batch -> worker -> vectors

A worker takes the next batch as soon as it is free; nothing polls and nothing waits for a timer.
Interactive requests go before bulk ones at every batch, so that they wait for the batches in work
only. A batch that fails is halved until the text that is to blame stands alone and gets the error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, Encoding, Timings, check_texts
from embedsvc.errors import (
    DeadlineError,
    EmbedsvcError,
    InvalidInputError,
    ModelFailedError,
    ModelLostError,
    OverloadedError,
    UnavailableError,
)
from embedsvc.options import EncodeOptions, Priority
from embedsvc.scheduling.lanes import Batch, Job, Lane

_log = logging.getLogger(__name__)
_MAX_RETRY_AFTER_S = 60
_INLINE_CHARACTERS = 2_000  # tokenizing fewer takes less time than handing them to a thread
_INTERACTIVE_STREAK = 8  # after so many interactive batches a waiting bulk batch has its turn
_CHUNK_TEXTS = 512  # what `encode_blocking` hands over at once


@dataclass(frozen=True)
class SchedulerOptions:
    """Limits of one scheduler; batch_tokens and workers default to the runtime's own."""

    max_queue_texts: int = 8192
    interactive_texts: int = 32  # larger requests are bulk unless they say otherwise
    batch_tokens: int | None = None
    workers: int | None = None
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


class Scheduler:
    """Encode texts of concurrent callers with one model. Callable from any thread once it is started."""

    def __init__(
        self,
        encoder: Encoder,
        options: SchedulerOptions | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._encoder = encoder
        self._options = options or SchedulerOptions()
        self._observer = observer or Observer()
        self._workers = self._options.workers or encoder.runtime.workers
        self._batch_tokens = self._options.batch_tokens or encoder.runtime.batch_tokens
        self._changed = threading.Condition()
        self._interactive = Lane("interactive", window_batches=4)
        self._bulk = Lane("bulk", window_batches=16)
        self._suspects: deque[Batch] = deque()
        self._running: dict[threading.Thread, Batch | None] = {}
        self._waiting: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self._unanswered = 0  # requests
        self._streak = 0
        self._closing = False
        self._seconds_per_text = 0.0
        self._last_success = -math.inf  # of time.monotonic
        self._last_failure = -math.inf
        self._tokenizers = ThreadPoolExecutor(2, thread_name_prefix="tokenize")

    def start(self) -> None:
        """Start the worker threads."""
        for _ in range(self._workers):
            self._start_worker()

    def close(self, grace_s: float = 0.0) -> None:
        """Refuse new texts, finish those that wait within ``grace_s`` seconds, fail the rest."""
        deadline = time.monotonic() + grace_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._unanswered and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            stranded = self._drain()
        for job in stranded:
            _fail(job, UnavailableError("the server is shutting down"))
        self._tokenizers.shutdown(wait=False, cancel_futures=True)

    def waiting_texts(self, lane: Priority) -> int:
        """Return the texts of a lane that no batch has taken yet."""
        return self._waiting[lane]

    def worked_within(self, seconds: float) -> bool:
        """True when a batch went well in the last ``seconds`` and none has failed since."""
        fresh = time.monotonic() - self._last_success < seconds
        return fresh and self._last_success > self._last_failure

    @property
    def idle(self) -> bool:
        """True when every request has its answer."""
        return not self._unanswered

    async def encode(
        self,
        texts: Sequence[str],
        options: EncodeOptions,
        *,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        client: str = "",
    ) -> Encoding:
        """Return vectors and usage of the texts, in order; positions in errors are the caller's own.

        priority defaults to interactive for few texts. client names who asks: clients take turns.
        Raises InvalidInputError before queueing where that is possible, OverloadedError at once when the
        queue is full, DeadlineError after ``timeout_s``, UnavailableError when closing or when the model is
        lost, ModelFailedError for a text that it fails on. A cancelled caller's texts are not encoded.
        """
        check_texts(texts)
        self._encoder.check(options)
        self.replace_hung()
        job = self._admit(list(texts), options, priority, client)
        lead = len(self._encoder.lead(options))
        if sum(map(len, texts)) + lead * (len(texts) + 1) <= _INLINE_CHARACTERS:
            self._enqueue(job)
        else:
            self._tokenizers.submit(self._enqueue, job)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            self.replace_hung()
            raise DeadlineError(f"the texts were not encoded within {timeout_s:g} s") from error
        except asyncio.CancelledError:
            self.replace_hung()
            raise

    def encode_blocking(self, texts: Sequence[str], options: EncodeOptions) -> Encoding:
        """Return vectors and usage for the server's own work: bulk, in chunks, never refused as overload."""
        check_texts(texts)
        self._encoder.check(options)
        parts = [self._encoder.encode_with_usage([], options)]
        for begin in range(0, len(texts), _CHUNK_TEXTS):
            chunk = list(texts[begin : begin + _CHUNK_TEXTS])
            job = self._register(Job(chunk, options, "bulk", "", time.perf_counter(), first=begin))
            self._enqueue(job)
            parts.append(job.future.result())
        return Encoding(
            np.concatenate([part.vectors for part in parts]),
            [count for part in parts for count in part.tokens],
            [cut for part in parts for cut in part.truncated],
        )

    # Admission

    def _admit(self, texts: list[str], options: EncodeOptions, priority: Priority | None, client: str) -> Job:
        few = len(texts) <= self._options.interactive_texts
        lane: Priority = priority or ("interactive" if few else "bulk")
        limit = self._options.max_queue_texts
        if len(texts) > limit:
            raise InvalidInputError(f"input has {len(texts)} texts; the limit is {limit}", param="input")
        waiting = sum(self._waiting.values())
        if waiting + len(texts) > limit and not self._closing:
            wait_s = math.ceil(waiting * self._seconds_per_text)
            raise OverloadedError(
                f"{waiting} texts are waiting and {len(texts)} more would exceed the limit of {limit}; "
                "try again later",
                retry_after=min(max(wait_s, 1), _MAX_RETRY_AFTER_S),
            )
        return self._register(Job(texts, options, lane, client, time.perf_counter()))

    def _register(self, job: Job) -> Job:
        with self._changed:
            if self._closing:
                raise UnavailableError("the server is shutting down")
            self._unanswered += 1
            job.waiting = len(job.texts)
            self._waiting[job.lane] += job.waiting
        job.future.add_done_callback(lambda _: self._forget(job))
        return job

    def _forget(self, job: Job) -> None:
        """Stop counting a request that has ended, and its texts."""
        with self._changed:
            self._unanswered -= 1
            self._waiting[job.lane] -= job.waiting
            job.waiting = 0
            self._changed.notify_all()

    def _enqueue(self, job: Job) -> None:
        """Tokenize a request and let the workers have it."""
        if job.future.done():
            return
        try:
            job.prepared = self._encoder.prepare(job.texts, job.options, first=job.first)
        except BaseException as error:  # a panic in Rust is no Exception
            _fail(job, _public(error, "the tokenizer failed on this input"))
            return
        job.lengths = self._encoder.lengths(job.prepared)
        job.raw = np.empty((len(job.texts), self._encoder.dimension), np.float32)
        job.missing = len(job.texts)
        job.queued = time.perf_counter()
        if not job.texts:
            self._finish(job)
            return
        with self._changed:
            (self._interactive if job.lane == "interactive" else self._bulk).add(job)
            self._changed.notify_all()

    # Workers

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
                    _fail(job, _public(error, "an internal error"))

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
                if self._closing and not self._unanswered:
                    return None
                self._changed.wait()
            self._running[me] = batch
            batch.begun = time.perf_counter()
            for job, _ in batch.rows:
                if job.waiting and not batch.alone:
                    job.waiting -= 1
                    self._waiting[job.lane] -= 1
                job.started = job.started or batch.begun
            return batch

    def _pick(self) -> Batch | None:
        """Return the batch to run now: suspects alone, then interactive, then bulk."""
        others = [batch for batch in self._running.values() if batch is not None]
        if self._suspects:
            return None if others else self._suspects.popleft()
        if any(batch.alone for batch in others):
            return None
        share = {"batch_tokens": self._batch_tokens, "workers": self._workers}
        bulk_turn = self._streak >= _INTERACTIVE_STREAK and bool(self._bulk)
        batch = None if bulk_turn else self._interactive.next_batch(**share)
        self._streak = self._streak + 1 if batch else 0
        return batch or self._bulk.next_batch(**share)

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
        _fail(job, ModelFailedError(f"the model failed to encode input[{job.first + row}]", param="input"))

    def _isolate(self, batch: Batch, error: ModelLostError) -> None:
        """Queue a batch that was running when the model died: it may be to blame, so it runs alone."""
        _log.error("%s; %d texts were being encoded", error.message, len(batch.rows))
        if error.fatal:
            for job, _ in batch.rows:
                _fail(job, error)
            return
        if batch.alone and len(batch.rows) == 1:
            ((job, row),) = batch.rows
            _fail(job, ModelFailedError(f"the model died on input[{job.first + row}]", param="input"))
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
                _fail(job, ModelFailedError(what, param="input"))
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
            per_text = seconds / len(batch.rows) / self._workers
            self._seconds_per_text = 0.9 * self._seconds_per_text + 0.1 * per_text
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
            _fail(job, error)
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

    # Recovery

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
                _fail(job, ModelLostError("the model hangs on this input; another worker takes over"))

    def _drain(self) -> list[Job]:
        """Take everything that waits or runs; the workers find nothing more to do."""
        batches = [batch for batch in self._running.values() if batch is not None]
        batches += self._suspects
        self._suspects.clear()
        self._running.clear()
        share = {"batch_tokens": self._batch_tokens, "workers": self._workers}
        for lane in (self._interactive, self._bulk):
            while (batch := lane.next_batch(**share)) is not None:
                batches.append(batch)
        self._changed.notify_all()
        return list(dict.fromkeys(job for batch in batches for job, _ in batch.rows))


def _fail(job: Job, error: BaseException) -> None:
    """Give the caller an error, unless it has its answer or has gone."""
    try:
        job.future.set_exception(error)
    except InvalidStateError:
        return


def _public(error: BaseException, message: str) -> EmbedsvcError:
    """Return an error to show: our own as it is, any other one as the cause of a plain message."""
    if isinstance(error, EmbedsvcError):
        return error
    shown = ModelFailedError(message)
    shown.__cause__ = error
    return shown
