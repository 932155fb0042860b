"""Batching between concurrent requests: what waits together is encoded together.

One worker per model. While it encodes one round in a thread, requests queue; then it takes the oldest
one and every other that shares its options, up to a budget. Nothing waits for a timer: an idle model
starts at once, a busy one finds larger rounds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from embedsvc.encoder import Encoder, Encoding, check_texts
from embedsvc.errors import EmbedsvcError, InvalidInputError, OverloadedError, UnavailableError
from embedsvc.tokens import Truncate

_log = logging.getLogger(__name__)
_ROUND_TEXTS = 512  # more are not taken together, so that a newcomer waits for one short round
_MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True)
class EncodeOptions:
    """What requests must share to be encoded together; the meaning is that of `Encoder.encode`."""

    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    truncate: Truncate = "none"


@dataclass(frozen=True)
class Round:
    """What one round of the worker did; for metrics."""

    requests: int
    texts: int
    tokens: int
    seconds: float


@dataclass(eq=False)
class _Job:
    texts: Sequence[str]
    options: EncodeOptions
    future: asyncio.Future[Encoding] = field(repr=False)


class Batcher:
    """Encode texts of concurrent callers with one model. Belongs to the event loop that starts it."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_queue_texts: int = 8192,
        batch_tokens: int | None = None,
        on_round: Callable[[Round], None] = lambda _: None,
    ) -> None:
        self._encoder = encoder
        self._max_queue_texts = max_queue_texts
        self._batch_tokens = batch_tokens
        self._on_round = on_round
        self._queue: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._round_started: float | None = None
        self._seconds_per_text = 0.0
        self._waiting_texts = 0
        self._closing = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting_texts(self) -> int:
        """Texts queued and not yet taken by the worker."""
        return self._waiting_texts

    @property
    def round_s(self) -> float:
        """Seconds since the running round began; 0 when idle."""
        return 0.0 if self._round_started is None else time.monotonic() - self._round_started

    def start(self) -> None:
        """Start the worker in the running event loop."""
        self._worker = asyncio.create_task(self._work(), name="batcher")
        self._worker.add_done_callback(self._worker_ended)

    async def close(self, grace_s: float | None = None) -> None:
        """Refuse new texts, finish those that wait (at most ``grace_s`` seconds long), stop the worker."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=grace_s)
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def encode(self, texts: Sequence[str], options: EncodeOptions) -> Encoding:
        """Return vectors and usage of the texts, in order; positions in errors are the caller's own.

        Raises InvalidInputError before queueing where that is possible, OverloadedError at once when the
        queue is full, UnavailableError when closing. A cancelled caller's texts are not encoded.
        """
        self._check(texts, options)
        if not texts:
            return self._encoder.encode_with_usage([], **asdict(options))
        job = _Job(texts, options, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._waiting_texts += len(texts)
        self._wake.set()
        try:
            return await job.future
        except asyncio.CancelledError:
            if job in self._queue:
                self._queue.remove(job)
                self._waiting_texts -= len(texts)
            raise

    def _check(self, texts: Sequence[str], options: EncodeOptions) -> None:
        check_texts(texts)
        self._encoder.check_dimensions(options.dimensions)
        self._encoder.resolve_prompt(options.prompt_name, options.prompt)
        if len(texts) > self._max_queue_texts:
            raise InvalidInputError(f"input has {len(texts)} texts; the limit is {self._max_queue_texts}")
        if self._closing:
            raise UnavailableError("the server is shutting down")
        if self._waiting_texts + len(texts) > self._max_queue_texts:
            wait_s = math.ceil(self._waiting_texts * self._seconds_per_text)
            raise OverloadedError(
                f"{self._waiting_texts} texts are waiting and {len(texts)} more would exceed the limit of "
                f"{self._max_queue_texts}; try again later",
                retry_after=min(max(wait_s, 1), _MAX_RETRY_AFTER_S),
            )

    async def _work(self) -> None:
        while not (self._closing and not self._queue):
            self._running = self._take()
            if self._running:
                await self._encode_round(self._running)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take(self) -> list[_Job]:
        """Return the oldest request and those that share its options, within the budget."""
        taken: list[_Job] = []
        left: deque[_Job] = deque()
        texts = 0
        for job in self._queue:
            fits = not taken or (job.options == taken[0].options and texts + len(job.texts) <= _ROUND_TEXTS)
            if fits and not job.future.done():
                taken.append(job)
                texts += len(job.texts)
            elif not job.future.done():
                left.append(job)
        self._queue = left
        self._waiting_texts = sum(len(job.texts) for job in left)
        return taken

    async def _encode_round(self, jobs: list[_Job]) -> None:
        """Encode the jobs together; if that fails, each alone, so that only the culprit gets the error."""
        texts = [text for job in jobs for text in job.texts]
        self._round_started = begin = time.monotonic()
        try:
            encoding = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._encode_in_thread, texts, jobs[0].options
            )
        except Exception as error:
            if len(jobs) == 1:
                _settle(jobs[0], error)
                return
            for job in jobs:
                if not job.future.done():
                    await self._encode_round([job])
            return
        finally:
            self._round_started = None
        seconds = time.monotonic() - begin
        self._seconds_per_text = 0.8 * self._seconds_per_text + 0.2 * seconds / len(texts)
        first = 0
        for job in jobs:
            part = slice(first, first + len(job.texts))
            _settle(job, Encoding(encoding.vectors[part], encoding.tokens[part], encoding.truncated[part]))
            first += len(job.texts)
        self._on_round(Round(len(jobs), len(texts), sum(encoding.tokens), seconds))

    def _encode_in_thread(self, texts: list[str], options: EncodeOptions) -> Encoding:
        try:
            return self._encoder.encode_with_usage(
                texts, **asdict(options), batch_tokens=self._batch_tokens, progress=False
            )
        except EmbedsvcError:
            raise
        except BaseException as error:  # a panic in Rust is no Exception and would end the event loop
            raise EmbedsvcError("the model failed to encode this input") from error

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        """Answer the callers of a worker that did not end by itself; start another one after a failure."""
        stopped = worker.cancelled() or worker.exception() is None
        for job in [*self._running, *(self._queue if stopped else ())]:
            _settle(job, UnavailableError("the encoding worker stopped; try again"))
        if not stopped:
            _log.error("the batching worker failed; another one takes over", exc_info=worker.exception())
            self.start()


def _settle(job: _Job, outcome: Encoding | Exception) -> None:
    """Give a caller the outcome, unless it has gone."""
    if job.future.done():
        return
    if isinstance(outcome, Exception):
        job.future.set_exception(outcome)
    else:
        job.future.set_result(outcome)
