"""Who is next: requests of one lane, in turns between clients. Pure, and not thread-safe."""

from __future__ import annotations

from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoding, Prepared
from embedsvc.options import EncodeOptions, Priority
from embedsvc.scheduling.plan import plan_batches

_LEAST_TOKENS = 64  # a smaller batch costs more in overhead than a second worker gains
_TURN_TOKENS = 512  # what one client gets before the next one has its turn


@dataclass(eq=False)
class Job:
    """The texts of one request on their way; times are seconds of `time.perf_counter`."""

    texts: list[str]
    options: EncodeOptions
    lane: Priority
    client: str
    arrived: float
    first: int = 0  # where the caller's positions begin, for errors
    future: Future[Encoding] = field(default_factory=Future, repr=False)
    prepared: Prepared = field(default_factory=lambda: Prepared([], [], []), repr=False)
    lengths: list[int] = field(default_factory=list, repr=False)
    raw: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32), repr=False)
    waiting: int = 0  # texts that no batch has taken yet
    missing: int = 0  # texts without a vector yet
    queued: float = 0.0
    started: float = 0.0


Row = tuple[Job, int]  # a text: its request and its position there


@dataclass(eq=False)
class Batch:
    """Texts that the model sees together."""

    rows: list[Row]
    lane: Priority
    alone: bool = False  # nothing else may run beside it: if the model dies, this batch is to blame
    begun: float = 0.0

    @property
    def padded_tokens(self) -> int:
        return len(self.rows) * max(job.lengths[row] for job, row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(job.lengths[row] for job, row in self.rows)

    def halves(self) -> tuple[Batch, Batch]:
        """Return the batch in two parts, neither empty when it has two rows."""
        middle = len(self.rows) // 2
        return (
            Batch(self.rows[:middle], self.lane, self.alone),
            Batch(self.rows[middle:], self.lane, self.alone),
        )


@dataclass(frozen=True)
class Share:
    """How a model takes its work: the budget of a batch, batches side by side, whether rows are padded."""

    batch_tokens: int
    workers: int
    pads: bool


class Lane:
    """Waiting requests of one priority, and the batches planned from the oldest of them.

    Texts are taken in windows, a turn of tokens per client; within a window they are sorted by length.
    A newcomer waits at most for the window in work, and a client with much work delays the others by a
    turn each, however many requests it has sent.
    """

    def __init__(self, priority: Priority, share: Share, *, window_batches: int) -> None:
        self._priority: Priority = priority
        self._share = share
        self._window_batches = window_batches
        self._clients: OrderedDict[str, deque[list[Row]]] = OrderedDict()
        self._window: deque[Batch] = deque()

    def add(self, job: Job) -> None:
        """Queue all texts of a tokenized request."""
        rows = [(job, row) for row in range(len(job.lengths) - 1, -1, -1)]  # taken from the end
        self._clients.setdefault(job.client, deque()).append(rows)

    def next_batch(self) -> Batch | None:
        """Return the next texts to encode together; None when nothing waits."""
        if not self._window:
            self._plan_window()
        return self._window.popleft() if self._window else None

    def __bool__(self) -> bool:
        return bool(self._window or self._clients)

    def _plan_window(self) -> None:
        """Take the next texts and cut them into batches of similar length, the shortest first.

        Few texts are spread over the workers rather than given to one.
        """
        share = self._share
        rows = self._take(share.batch_tokens * share.workers * self._window_batches)
        if not rows:
            return
        lengths = [job.lengths[row] for job, row in rows]
        budget = share.batch_tokens
        if share.workers > 1:
            budget = min(budget, max(-(-sum(lengths) // share.workers), _LEAST_TOKENS))
        for picked in reversed(plan_batches(lengths, budget, pads=share.pads)):
            self._window.append(Batch([rows[place] for place in picked.tolist()], self._priority))

    def _take(self, tokens: int) -> list[Row]:
        taken: list[Row] = []
        while tokens > 0 and self._clients:
            client, requests = self._clients.popitem(last=False)
            turn = _TURN_TOKENS
            while requests and turn > 0:
                rows = requests[0]
                if rows[0][0].future.done():  # its caller has gone
                    rows.clear()
                while rows and turn > 0:
                    taken.append(rows.pop())
                    length = taken[-1][0].lengths[taken[-1][1]]
                    turn -= length
                    tokens -= length
                if not rows:
                    requests.popleft()
            if requests:
                self._clients[client] = requests  # at the end of the line
        return taken
