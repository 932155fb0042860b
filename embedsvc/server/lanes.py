"""Lanes for blocking work: a few threads each, and a bounded number of callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from embedsvc.errors import EmbedsvcError, OverloadedError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Lane:
    """Run functions in ``threads`` threads; at most ``limit`` run or wait, the next is refused at once."""

    def __init__(self, name: str, *, threads: int, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._places = threading.Semaphore(limit)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Return what the function returns; raise OverloadedError when the lane is full.

        A cancelled caller's work is dropped if it has not begun; begun work keeps its place to its end.
        """
        if not self._places.acquire(blocking=False):
            raise OverloadedError(f"{self._limit} requests for {self._name} are running; try again later")

        def contained() -> Result:
            try:
                return function(*args, **kwargs)
            except Exception:
                raise
            except BaseException as error:  # a panic in Rust
                raise EmbedsvcError("the model failed on this input") from error

        future = self._pool.submit(contained)
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what has not begun; do not wait for what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)
