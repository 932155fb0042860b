"""Bodies of lines, read as they come; POST /v1/embeddings/stream: a text per line, options in the query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pydantic import ConfigDict, Field
from starlette.types import Receive

from embedsvc.encoder import check_texts
from embedsvc.errors import InvalidInputError
from embedsvc.options import Priority
from embedsvc.server.errors import RequestTimeoutError
from embedsvc.server.requests.openai import EncodeFields

_WINDOW_CHARACTERS = 1_000_000


class ClientGoneError(Exception):
    """The client closed the connection."""


class StreamQuery(EncodeFields):
    """The options of `POST /v1/embeddings`, written as text."""

    model_config = ConfigDict(strict=False)

    model: str | None = Field(None, description="The name from GET /v1/models; may be left out.")
    encoding_format: Literal["float", "base64"] = "float"
    priority: Priority = Field("bulk", description="interactive does not wait behind others' bulk work.")


@dataclass(frozen=True)
class Limits:
    """What bounds the memory of a stream."""

    line_bytes: int
    window_texts: int


@dataclass
class Window:
    """Texts that are encoded together, with the ids they came with and the lines they came from."""

    first: int  # the position of its first text in the stream
    texts: list[str] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    characters: int = 0

    def is_full(self, limits: Limits) -> bool:
        return len(self.texts) >= limits.window_texts or self.characters >= _WINDOW_CHARACTERS

    def add(self, line: int, id_: Any, text: str) -> None:
        self.texts.append(text)
        self.ids.append(id_)
        self.lines.append(line)
        self.characters += len(text)


async def windows(
    chunks: AsyncIterator[bytes], limits: Limits, is_idle: Callable[[], bool]
) -> AsyncIterator[Window]:
    """Yield the texts of an NDJSON body in windows; at a wrong line raise InvalidInputError naming it.

    A window is full, or, at an empty chunk, what has come so far when nothing else is being encoded: a
    client may wait for each answer. What came before the wrong line is yielded first. Empty lines are passed
    over.
    """
    window = Window(first=0)
    try:
        async for number, line in numbered_lines(chunks, limits.line_bytes):
            if line:
                window.add(number, *_parsed(line, number))
            if window.is_full(limits) or (line is None and window.texts and is_idle()):
                yield window
                window = Window(first=window.first + len(window.texts))
    except InvalidInputError:
        if window.texts:
            yield window
        raise
    if window.texts:
        yield window


async def body_chunks(receive: Receive, idle_s: float) -> AsyncIterator[bytes]:
    """Yield a body as it comes, and an empty chunk where more will come, but who knows when.

    Raises RequestTimeoutError when nothing comes for ``idle_s`` seconds, ClientGoneError when nothing will.
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await receive()
        except TimeoutError as error:
            raise RequestTimeoutError(f"nothing came for request_timeout_s = {idle_s:g} s") from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        more = message.get("more_body", False)
        yield message.get("body", b"")
        if more:
            yield b""


async def numbered_lines(
    chunks: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield the lines without surrounding white space, and their numbers from 1; None for an empty chunk."""
    rest, number = b"", 0
    async for chunk in chunks:
        if not chunk:
            yield number, None
            continue
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            number += 1
            _check_length(line, number, max_bytes)
            yield number, line.strip()
        _check_length(rest, number + 1, max_bytes)
    yield number + 1, rest.strip()


def _check_length(line: bytes, number: int, most: int) -> None:
    if len(line) > most:
        raise InvalidInputError(f"line {number} has more than max_body_bytes = {most} bytes")


def _parsed(line: bytes, number: int) -> tuple[Any, str]:
    """Return the id, None when there is none, and the text of a line."""
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"line {number} is not valid JSON: {error}") from error
    id_ = None
    if isinstance(given, dict):
        if not {"text"} <= given.keys() <= {"id", "text"}:
            raise InvalidInputError(
                f'line {number} has the fields {", ".join(given)}; "id" and "text" are known'
            )
        id_, given = given.get("id"), given["text"]
    if not isinstance(given, str):
        raise InvalidInputError(f'line {number} must be a text or {{"id": …, "text": "…"}}')
    check_texts([given], name=f"line {number}: text")
    return id_, given
