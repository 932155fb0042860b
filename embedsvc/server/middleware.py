"""What holds for every request: limits of size and time, clients that go away, unexpected errors."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from urllib.parse import quote

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedsvc.errors import EmbedsvcError, OverloadedError, UnavailableError
from embedsvc.server.errors import (
    BodyTooLargeError,
    RequestTimeoutError,
    error_response,
    internal_error_response,
)
from embedsvc.server.requests.body import is_ndjson
from embedsvc.server.requests.multipart import is_form
from embedsvc.server.state import ServerState

_log = logging.getLogger(__name__)
_DISCARDED_BODIES = 8  # a client sees its 413 only after it has sent its body; more than this is cut off


_STREAMED_PATHS = frozenset({"/v1/embeddings/stream"})
_DOCUMENTS = re.compile(r"/v1/collections/[^/]+/documents")
_JOBS = "/v1/jobs"
_JOB_STREAMS = re.compile(rf"{_JOBS}/[^/]+/(?:events|result)")
# A small request is refused before it is parsed while every model's interactive lane is full: a refusal
# must cost next to nothing.
_SMALL_BYTES = 16 * 1024
_ENCODING_PATHS = frozenset(
    {
        *("/v1/embeddings", "/embeddings", "/v1/embed", "/v2/embed"),
        *("/", "/embed", "/similarity"),
    }
)
_RANKING_PATHS = frozenset({"/rerank", "/v1/rerank", "/v2/rerank"})  # encoded unless there is a reranker


def is_streamed(scope: Scope) -> bool:
    """Read or answered piece by piece, for as long as pieces come: the route itself keeps the limits."""
    path: str = scope["path"]
    if path in _STREAMED_PATHS:
        return True
    if path == _JOBS:
        return scope["method"] == "POST" and is_form(Headers(scope=scope))
    if scope["method"] == "GET" and _JOB_STREAMS.fullmatch(path):
        return True
    if scope["method"] not in ("GET", "PUT") or not _DOCUMENTS.fullmatch(path):
        return False
    return scope["method"] == "GET" or is_ndjson(Headers(scope=scope))


class _ClientGoneError(Exception):
    """The client closed the connection before the answer."""


class RequestGuard:
    """ASGI layer that answers whatever goes wrong within it, and new requests while the server drains."""

    def __init__(self, app: ASGIApp, *, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        answer: Response | None = None
        try:
            if scope["app"].state.draining and scope["path"] != "/health":
                raise UnavailableError("the server is shutting down")
            streamed = is_streamed(scope)
            async with asyncio.timeout(None if streamed else self._timeout_s):
                await self._app(scope, receive, noting_send)
        except _ClientGoneError:
            return
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
            _log.exception("%s %s failed", scope["method"], quote(scope["path"]))
            answer = internal_error_response(scope["path"])
        if answer is not None and not begun:
            answer.headers["Connection"] = "close"  # unread input may be left
            await answer(scope, receive, send)


class WholeBody:
    """ASGI layer that reads the whole body before the route runs, and ends the route when the client goes."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_streamed(scope):
            await self._app(scope, receive, send)
            return
        body = await self._read_body(scope, receive)
        if len(body) <= _SMALL_BYTES and scope["method"] == "POST":
            overload = _overload(scope)
            if overload is not None:
                await error_response(overload, scope["path"])(scope, receive, send)
                return
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


def _overload(scope: Scope) -> OverloadedError | None:
    """Return why no model would take a request for this path now; None when one would."""
    state: ServerState = scope["app"].state.server
    encodes = scope["path"] in _ENCODING_PATHS or (
        scope["path"] in _RANKING_PATHS and state.reranking is None
    )
    return state.models.overload() if encodes else None


async def _until_client_gone(work: Awaitable[None], receive: Receive) -> None:
    """Await ``work``; cancel it and raise _ClientGoneError when the client closes the connection first."""
    handler = asyncio.current_task()
    assert handler is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        handler.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if not gone or handler.uncancel():  # somebody else wants it to end, too
            raise
        raise _ClientGoneError from None
    finally:
        watcher.cancel()
