"""The events of a job as server-sent events: what happened, each with an id, and how far it is, without.

A client that comes back with the header Last-Event-ID is told what it has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import orjson
from fastapi import Request

from embedsvc.errors import EmbedsvcError, InvalidInputError, OverloadedError
from embedsvc.jobs.record import Event
from embedsvc.jobs.store import Job
from embedsvc.server.job_cards import stage_facts

EVENT_STREAM = "text/event-stream"
_LOOK_S = 0.5
_HEARTBEAT_LOOKS = 20  # a comment after so many looks without news: proxies close what is silent
_RETRY_MS = 2000
_MOST_LISTENERS = 64


class Listeners:
    """Who listens to events now: so many at most, for each looks at files twice a second."""

    def __init__(self) -> None:
        self._count = 0

    def check_room(self) -> None:
        """Raise OverloadedError when there are as many as may be."""
        if self._count >= _MOST_LISTENERS:
            raise OverloadedError(
                f"{_MOST_LISTENERS} clients listen to events of jobs; ask for the state instead",
                retry_after=10,
            )

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a listener for as long as it listens."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def last_event_id(request: Request) -> int:
    """Return the id that the client has seen last, 0 for none; raise InvalidInputError."""
    given = request.headers.get("last-event-id", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InvalidInputError(f"the header Last-Event-ID is {given[:60]!r}, not the id of an event")
    return int(given)


async def events_of(
    look: Callable[[], Job], seen: int, is_over: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield what happened after the event ``seen``, then what happens, until the job has ended."""
    yield b"retry: %d\n\n" % _RETRY_MS
    last_progress, silent = b"", 0
    while not await is_over():
        try:
            job = await asyncio.to_thread(look)
        except EmbedsvcError:  # it was deleted
            return
        news = [_event(event) for event in job.record.events if event.id > seen]
        seen = max([seen, *(event.id for event in job.record.events)])
        progress = _progress(job)
        if progress != last_progress and not job.record.has_ended:
            last_progress = progress
            news.append(progress)
        silent = 0 if news else silent + 1
        if silent >= _HEARTBEAT_LOOKS:
            silent = 0
            news.append(b": still here\n\n")
        if news:
            yield b"".join(news)
        if job.record.has_ended:
            return
        await asyncio.sleep(_LOOK_S)


def _event(event: Event) -> bytes:
    data = orjson.dumps({"at": round(event.at, 3), **event.data})
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.id, event.event.encode(), data)


def _progress(job: Job) -> bytes:
    """Return how far the job is; without an id, so that the last id stays that of something that happened."""
    if not job.progress.stages or job.record.state != "running":
        return b""
    told = stage_facts(job.progress.stages[-1])
    return b"event: progress\ndata: %b\n\n" % orjson.dumps(told)
