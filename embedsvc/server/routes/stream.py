"""POST /v1/embeddings/stream: any number of texts through one request, with bounded memory on both sides."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from embedsvc.encoder import Encoding
from embedsvc.errors import EmbedsvcError
from embedsvc.server.answers import base64_rows, number_rows
from embedsvc.server.auth import charge_texts
from embedsvc.server.errors import error_response, internal_error_response
from embedsvc.server.inference import Asked, encode_charged, patiently, state_of
from embedsvc.server.models import ServedModel
from embedsvc.server.requests.body import NDJSON, query_of, read_query
from embedsvc.server.requests.lines import (
    ClientGoneError,
    Limits,
    StreamQuery,
    Window,
    body_chunks,
    windows,
)
from embedsvc.settings import Settings

_log = logging.getLogger(__name__)
_WINDOW_TEXTS = 512
_WINDOWS = 2  # read and not yet answered: one is encoded while the other is sent
router = APIRouter(tags=["embeddings"])


@router.post(
    "/v1/embeddings/stream",
    response_class=Response,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
    openapi_extra=query_of(StreamQuery)
    | {"requestBody": {"required": True, "content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def embeddings_stream(request: Request) -> Response:
    """Encode lines into lines, in order: NDJSON in, NDJSON out, options in the query.

    A line is a JSON string or `{"id": …, "text": "…"}`; its answer is
    `{"index", "id", "embedding", "tokens", "truncated"}`. An error is a line too, `{"error": …}`: it names
    the line that is wrong, and the stream ends. Read the answer while you send, as curl does:
    a client that only sends is cut off when nothing moves for request_timeout_s.
    """
    query = read_query(request, StreamQuery)
    state = state_of(request)
    served = await state.models.get(query.model)
    served.encoder.check(query.options())
    return _Stream(request, query, served, state.settings)


@dataclass(frozen=True)
class _Piece:
    """Lines to send; after the last piece the stream ends."""

    content: bytes
    is_last: bool = False


class _Stream(Response):
    """The answer, written while the body is read: one task reads, one per window encodes, one writes."""

    def __init__(self, request: Request, query: StreamQuery, served: ServedModel, settings: Settings) -> None:
        super().__init__(media_type=NDJSON)
        del self.headers["content-length"]
        self._request = request
        self._query = query
        self._served = served
        self._limits = Limits(
            line_bytes=settings.max_body_bytes, window_texts=min(_WINDOW_TEXTS, settings.max_batch_texts)
        )
        self._idle_s = settings.request_timeout_s
        self._slots = asyncio.Semaphore(_WINDOWS)
        self._unanswered = 0  # windows
        self._pieces: asyncio.Queue[asyncio.Task[_Piece]] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(group, receive))
                await self._write(send)
                reader.cancel()
                while not self._pieces.empty():
                    self._pieces.get_nowait().cancel()
        except* (ClientGoneError, TimeoutError):
            pass  # nobody reads any more

    async def _write(self, send: Send) -> None:
        """Send the pieces in order, as fast as the client takes them."""
        last = False
        while not last:
            piece = await (await self._pieces.get())
            last = piece.is_last
            async with asyncio.timeout(self._idle_s):
                message = {"type": "http.response.body", "body": piece.content, "more_body": not last}
                await send(message)
            self._unanswered -= 1
            self._slots.release()

    async def _read(self, group: asyncio.TaskGroup, receive: Receive) -> None:
        """Read windows and start to encode them; then wait for the client to go away."""
        source = windows(body_chunks(receive, self._idle_s), self._limits, lambda: not self._unanswered)
        ending = _Piece(b"", is_last=True)
        try:
            await self._slots.acquire()
            async for window in source:
                self._unanswered += 1
                self._pieces.put_nowait(group.create_task(self._piece(window)))
                await self._slots.acquire()
        except EmbedsvcError as error:
            ending = _Piece(_error_line(error), is_last=True)
        self._pieces.put_nowait(group.create_task(_done(ending)))
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientGoneError

    async def _piece(self, window: Window) -> _Piece:
        try:
            encoding = await self._encode(window)
        except EmbedsvcError as error:
            return _Piece(_error_line(error), is_last=True)
        except Exception:
            _log.exception("a window of %s failed", self._request.url.path)
            return _Piece(bytes(internal_error_response().body) + b"\n", is_last=True)
        as_base64 = self._query.encoding_format == "base64"
        return _Piece(await asyncio.to_thread(_lines, window, encoding, as_base64=as_base64))

    async def _encode(self, window: Window) -> Encoding:
        """Encode a window; a full queue, or a used up rate, makes it wait, and so the client."""
        request, options = self._request, self._query.options()
        asked = Asked(lambda position: f"line {window.lines[position]}", self._query.priority)
        await patiently(lambda: _charge(request, window))
        return await patiently(lambda: encode_charged(request, self._served, window.texts, options, asked))


async def _charge(request: Request, window: Window) -> None:
    charge_texts(request, len(window.texts))


async def _done(piece: _Piece) -> _Piece:
    return piece


def _lines(window: Window, encoding: Encoding, *, as_base64: bool) -> bytes:
    values = base64_rows(encoding.vectors) if as_base64 else number_rows(encoding.vectors)
    lines = []
    rows = zip(window.ids, values, encoding.tokens, encoding.truncated, strict=True)
    for index, (id_, value, tokens, truncated) in enumerate(rows, window.first):
        named = b"" if id_ is None else b'"id":%b,' % orjson.dumps(id_)
        cut = b',"truncated":true' if truncated else b""
        lines.append(b'{"index":%d,%b"embedding":%b,"tokens":%d%b}\n' % (index, named, value, tokens, cut))
    return b"".join(lines)


def _error_line(error: EmbedsvcError) -> bytes:
    return bytes(error_response(error).body) + b"\n"
