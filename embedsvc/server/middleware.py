"""What holds for every request: limits of size and time, clients that go away, unexpected errors, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedsvc.errors import EmbedsvcError, UnavailableError
from embedsvc.server.errors import (
    BodyTooLargeError,
    RequestTimeoutError,
    error_response,
    internal_error_response,
)
from embedsvc.server.metrics import Metrics

_log = logging.getLogger(__name__)
_DISCARDED_BODIES = 8  # a client sees its 413 only after it has sent its body; more than this is cut off
_CLIENT_GONE = 499  # as nginx names it; seen in the metrics only


# Read and answered piece by piece, for as long as pieces come: the route itself keeps the limits.
STREAMED_PATHS = frozenset({"/v1/embeddings/stream"})


class _ClientGoneError(Exception):
    """The client closed the connection before the answer."""


class RequestGuard:
    """The outermost ASGI layer. The body is read here, whole, before the route runs."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_s: float, metrics: Metrics) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        status: int | None = None

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        answer: Response | None = None
        try:
            streamed = scope["path"] in STREAMED_PATHS
            async with asyncio.timeout(None if streamed else self._timeout_s):
                await self._handle(scope, receive, noting_send)
        except _ClientGoneError:
            status = status or _CLIENT_GONE
        except asyncio.CancelledError:  # uvicorn, when the grace of a shutdown has passed
            answer = error_response(
                UnavailableError("the server shut down before the request was done"), scope["path"]
            )
        except TimeoutError:
            limit = f"request_timeout_s = {self._timeout_s:g} s"
            answer = error_response(
                RequestTimeoutError(f"the request took longer than {limit}"), scope["path"]
            )
        except EmbedsvcError as error:
            answer = error_response(error, scope["path"])
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            answer = internal_error_response(scope["path"])
        if answer is not None and status is None:
            answer.headers["Connection"] = "close"  # unread input may be left
            await answer(scope, receive, noting_send)
        self._metrics.observe_request(scope, status or 500, time.perf_counter() - begin)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in STREAMED_PATHS:
            await self._app(scope, receive, send)
            return
        body = await self._read_body(scope, receive)
        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await _until_client_gone(self._app(scope, replay, send), receive)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit, most = self._max_body_bytes, self._max_body_bytes * _DISCARDED_BODIES
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(declared) if declared.isdigit() else 0
        chunks: list[bytes] = []
        received, more = 0, size <= most
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            chunk = message.get("body", b"")
            received += len(chunk)
            if received <= limit:
                chunks.append(chunk)
            more = message.get("more_body", False) and received <= most
        if max(received, size) > limit:
            raise BodyTooLargeError(f"the body has more than max_body_bytes = {limit} bytes")
        return b"".join(chunks)


async def _until_client_gone(work: Awaitable[None], receive: Receive) -> None:
    """Await ``work``; cancel it and raise _ClientGoneError when the client closes the connection first."""
    handler = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({handler, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not handler.done():
            raise _ClientGoneError
        await handler
    finally:
        handler.cancel()
        gone.cancel()
        await asyncio.wait({handler, gone})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
