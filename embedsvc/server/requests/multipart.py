"""A multipart form, read as it comes: files go to disk, fields into memory, neither without a limit."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.server.errors import BodyTooLargeError

FORM = "multipart/form-data"
_PIECE_BYTES = 1 << 20  # parsed and written at once, in a thread
_MOST_PARTS = 100
_NAME_BYTES = 200
_UNWANTED = re.compile(r"[^\w.()+=@ -]")


@dataclass(frozen=True)
class FormRules:
    """What a form may hold. ``check_field`` is called as soon as a field is there."""

    files: frozenset[str]
    fields: frozenset[str]
    check_field: Callable[[str, str], None]
    max_upload_bytes: int
    max_field_bytes: int


@dataclass
class Form:
    """What came: the paths of files by the name of their part, in order, and the fields."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class _Part:
    disposition: bytes = b""
    name: str = ""
    file: IO[bytes] | None = None
    path: Path | None = None
    is_unnamed: bool = False  # what a browser sends for a file that nobody chose
    data: bytearray = field(default_factory=bytearray)


async def read_form(chunks: AsyncIterator[bytes], content_type: str, folder: Path, rules: FormRules) -> Form:
    """Return the form in a body; its files lie in ``folder``, each in a folder of its own.

    Raises InvalidInputError or BodyTooLargeError as soon as something is wrong, StorageError when the disk
    takes no more.
    """
    reader = _Reader(content_type, folder, rules)
    try:
        piece = bytearray()
        async for chunk in chunks:
            piece += chunk
            if len(piece) >= _PIECE_BYTES:
                await asyncio.to_thread(reader.feed, bytes(piece))
                piece.clear()
        await asyncio.to_thread(reader.finish, bytes(piece))
        return reader.form
    finally:
        reader.close()


class _Reader:
    """The parser's callbacks; one thread at a time."""

    def __init__(self, content_type: str, folder: Path, rules: FormRules) -> None:
        self.form = Form()
        self._folder = folder
        self._rules = rules
        self._received = 0
        self._parts = 0
        self._part = _Part()
        self._header = bytearray()
        self._value = bytearray()
        self._is_whole = False
        self._parser = _parser(content_type, self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._received += len(data)
        if self._received > self._rules.max_upload_bytes:
            raise too_large(self._rules.max_upload_bytes)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidInputError(f"the body is not valid {FORM}: {error}") from error
        except OSError as error:
            raise StorageError(f"the upload cannot be stored: {error.strerror}") from error

    def finish(self, data: bytes) -> None:
        """Take the last bytes."""
        self.feed(data)
        if not self._is_whole:
            raise InvalidInputError(f"the body ends before the last boundary of its {FORM}")

    def close(self) -> None:
        """Let go of a file that is still open."""
        if self._part.file:
            self._part.file.close()

    def on_part_begin(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise InvalidInputError(f"the form has more than {_MOST_PARTS} parts")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._part.disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        part, rules = self._part, self._rules
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        if part.name in rules.files:
            part.is_unnamed = b"filename" in options and not filename
            part.path = self._path(part.name, filename)
            part.path.parent.mkdir()
            part.file = part.path.open("wb")
        elif part.name not in rules.fields:
            known = ", ".join(sorted(rules.files | rules.fields))
            raise InvalidInputError(f"the form has a part {part.name[:60]!r}; known: {known}", param="form")
        elif part.name in self.form.fields:
            raise InvalidInputError(f"the form has two parts {part.name!r}", param=part.name)

    def _path(self, name: str, filename: str) -> Path:
        """Return where a file goes: its own name, without what could lead elsewhere, in a new folder."""
        plain = _UNWANTED.sub("_", filename.replace("\\", "/").rpartition("/")[2]).lstrip(".")
        while len(plain.encode()) > _NAME_BYTES:  # from the left: the ending says what it is
            plain = plain[1:]
        return self._folder / f"{name}-{self._parts}" / (plain or f"{name}.txt")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.file:
            part.file.write(memoryview(data)[start:end])
            return
        part.data += data[start:end]
        if len(part.data) > self._rules.max_field_bytes:
            raise BodyTooLargeError(
                f"{part.name} has more than max_body_bytes = {self._rules.max_field_bytes} bytes",
                param=part.name,
            )

    def on_part_end(self) -> None:
        part = self._part
        if part.file and part.path:
            part.file.flush()
            is_empty = not part.file.tell()
            os.fsync(part.file.fileno())
            part.file.close()
            if not (part.is_unnamed and is_empty):
                self.form.files.setdefault(part.name, []).append(part.path)
            return
        try:
            text = part.data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{part.name} is not UTF-8", param=part.name) from error
        self._rules.check_field(part.name, text)
        self.form.fields[part.name] = text

    def on_end(self) -> None:
        self._is_whole = True


def is_form(headers: Headers) -> bool:
    """True for a body that is a form with files."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _parser(content_type: str, reader: _Reader) -> MultipartParser:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidInputError(f"the header Content-Type: {FORM} has no boundary")
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_end": reader.on_end,
            },
        )
    except FormParserError as error:
        raise InvalidInputError(f"the header Content-Type has a wrong boundary: {error}") from error


def too_large(limit: int) -> BodyTooLargeError:
    """Return the error about an upload that is too large."""
    return BodyTooLargeError(f"the upload has more than max_upload_bytes = {limit} bytes")
