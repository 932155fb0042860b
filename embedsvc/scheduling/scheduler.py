"""One model, many callers: bounded queues with two lanes, batches by token budget, workers that survive.

    encode() -> admit or refuse -> tokenize -> lane -> window sorted by length -> batch -> worker -> vectors

A worker takes the next batch as soon as it is free; nothing polls and nothing waits for a timer.
Interactive requests go before bulk ones at every batch, so that they wait for the batches in work only.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embedsvc.encoder import Encoder, Encoding, check_texts
from embedsvc.errors import DeadlineError, InvalidInputError, OverloadedError, UnavailableError
from embedsvc.options import EncodeOptions, Priority
from embedsvc.scheduling.lanes import Job
from embedsvc.scheduling.workers import Observer, SchedulerOptions, Workers, fail, public

_MAX_RETRY_AFTER_S = 60
_INLINE_CHARACTERS = 2_000  # tokenizing fewer takes less time than handing them to a thread
_CHUNK_TEXTS = 512  # what `encode_blocking` hands over at once


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
        self._workers = Workers(encoder, self._options, observer or Observer())
        self._tokenizers = ThreadPoolExecutor(2, thread_name_prefix="tokenize")
        self._unanswered: set[Job] = set()
        self._answered = threading.Condition()
        self._closing = False

    def start(self) -> None:
        """Start the worker threads."""
        self._workers.start()

    def close(self, grace_s: float = 0.0) -> None:
        """Refuse new texts, finish those that wait within ``grace_s`` seconds, fail the rest."""
        with self._answered:
            self._closing = True
            self._answered.wait_for(lambda: not self._unanswered, grace_s)
            stranded = list(self._unanswered)
        for job in stranded:
            fail(job, UnavailableError("the server is shutting down"))
        self._workers.stop()
        self._tokenizers.shutdown(wait=False, cancel_futures=True)

    def waiting_texts(self, lane: Priority) -> int:
        """Return the texts of a lane that no batch has taken yet."""
        return self._workers.waiting_texts(lane)

    def worked_within(self, seconds: float) -> bool:
        """True when a batch went well in the last ``seconds`` and none has failed since."""
        return self._workers.worked_within(seconds)

    def replace_hung(self) -> None:
        """Give up batches that have run for longer than ``batch_timeout_s``; new workers take over."""
        self._workers.replace_hung()

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
        self._workers.replace_hung()
        few = len(texts) <= self._options.interactive_texts
        lane: Priority = priority or ("interactive" if few else "bulk")
        self._refuse_overload(lane, len(texts), timeout_s)
        job = self._register(Job(list(texts), options, lane, client, time.perf_counter()))
        lead = len(self._encoder.lead(options))
        answer = asyncio.wrap_future(job.future)
        try:
            async with asyncio.timeout(timeout_s):
                # The last thing before waiting: a worker gets the interpreter when this thread waits.
                if sum(map(len, texts)) + lead * (len(texts) + 1) <= _INLINE_CHARACTERS:
                    self._enqueue(job)
                else:
                    self._tokenizers.submit(self._enqueue, job)
                return await answer
        except TimeoutError as error:
            self._workers.replace_hung()
            raise DeadlineError(f"the texts were not encoded within {timeout_s:g} s") from error
        except asyncio.CancelledError:
            self._workers.replace_hung()
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

    def overload(self) -> OverloadedError | None:
        """Return why not even one interactive text would be taken now; None when it would."""
        try:
            self._refuse_overload("interactive", 1, None)
        except OverloadedError as error:
            return error
        return None

    def _refuse_overload(self, lane: Priority, count: int, timeout_s: float | None) -> None:
        """Raise OverloadedError when the lane is full, or its wait longer than it may be.

        Bulk work waits as long as its caller allows.
        """
        limit = self._options.max_queue_texts
        if count > limit:
            raise InvalidInputError(f"input has {count} texts; the limit is {limit}", param="input")
        waiting = self.waiting_texts(lane)
        before = waiting if lane == "interactive" else waiting + self.waiting_texts("interactive")
        wait_s = before * self._workers.seconds_per_text
        retry_after = min(max(math.ceil(wait_s), 1), _MAX_RETRY_AFTER_S)
        if waiting + count > limit:
            raise OverloadedError(
                f"{waiting} {lane} texts are waiting and {count} more would exceed "
                f"max_queue_texts = {limit}; try again later",
                retry_after=retry_after,
            )
        limit_s = self._options.max_queue_s if lane == "interactive" else math.inf
        if wait_s > min(limit_s, timeout_s or math.inf):
            allowed = f"max_queue_s = {limit_s:g}" if timeout_s is None else f"timeout_s = {timeout_s:g}"
            raise OverloadedError(
                f"{before} texts wait before this request, some {wait_s:.1f} s of work; {allowed}",
                retry_after=retry_after,
            )

    def _register(self, job: Job) -> Job:
        with self._answered:
            if self._closing:
                raise UnavailableError("the server is shutting down")
            self._unanswered.add(job)
        job.future.add_done_callback(lambda _: self._forget(job))
        self._workers.expect(job)
        return job

    def _forget(self, job: Job) -> None:
        with self._answered:
            self._unanswered.discard(job)
            self._answered.notify_all()

    def _enqueue(self, job: Job) -> None:
        """Tokenize a request and let the workers have it."""
        if job.future.done():
            return
        try:
            job.prepared = self._encoder.prepare(job.texts, job.options, first=job.first)
        except BaseException as error:  # a panic in Rust is no Exception
            fail(job, public(error, "the tokenizer failed on this input"))
            return
        job.lengths = self._encoder.lengths(job.prepared)
        job.queued = time.perf_counter()
        self._workers.add(job)
