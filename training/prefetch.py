"""Draw batches a little ahead of the step that learns from them, in another thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Drawn = TypeVar("Drawn")


def prefetched(draw: Callable[[int], Drawn], first: int, last: int) -> Iterator[tuple[int, Drawn]]:
    """Yield (step, draw(step)), drawn a little ahead in another thread."""
    ready: queue.Queue[tuple[int, Drawn] | BaseException] = queue.Queue(maxsize=4)
    stop = threading.Event()

    def work() -> None:
        try:
            for step in range(first, last):
                if stop.is_set():
                    return
                ready.put((step, draw(step)))
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
