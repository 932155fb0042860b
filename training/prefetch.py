"""Draw batches a little ahead of the step that learns from them, in another thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from training.sampling import Batch, BatchSampler


def prefetched(sampler: BatchSampler, first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Yield (step, batch), drawn a little ahead in another thread."""
    ready: queue.Queue[tuple[int, Batch] | BaseException] = queue.Queue(maxsize=4)
    stop = threading.Event()

    def draw() -> None:
        try:
            for step in range(first, last):
                if stop.is_set():
                    return
                ready.put((step, sampler.batch(step)))
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=draw, daemon=True).start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
