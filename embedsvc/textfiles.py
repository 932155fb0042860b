"""Read text files line by line, checked (UTF-8, not binary); write files whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from embedsvc.compression import damage_named, open_unpacked
from embedsvc.errors import InvalidInputError, NotFoundError

MAX_LINE_BYTES = 64 << 20
"""The longest line read unless the caller says otherwise: a longer one is no text, but fills the memory."""

_OTHER_ENCODINGS = {  # by byte order mark, the longer first
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
BadBytes = Callable[[int, int], None]


def iterate_lines(
    path: Path, *, max_line_bytes: int = MAX_LINE_BYTES, on_bad_bytes: BadBytes | None = None
) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); .gz, .xz and .zst files are unpacked on the way.

    A line ends with a line feed, before which a carriage return is part of the end; other characters that
    may end a line (form feed, U+2028) are text. Bytes that are not UTF-8 are an error, or, given
    on_bad_bytes, become U+FFFD each, and it is called with the line's number and how many they were.
    Raises InvalidInputError at the first bad byte, a NUL byte, or a line of more than max_line_bytes bytes.
    """
    check_file(path)
    for number, raw in _raw_lines(path, max_line_bytes):
        if number == 1:
            raw = _without_byte_order_mark(raw, path)
        if b"\0" in raw:
            raise InvalidInputError(f"{path} line {number}: a NUL byte; this is not a UTF-8 text file")
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            if on_bad_bytes is None:
                where = f"byte {raw[error.start]:#04x} at position {error.start}"
                raise InvalidInputError(f"{path} line {number}: {where} is not UTF-8") from error
            line = raw.decode(errors="replace")
            on_bad_bytes(number, line.count("\ufffd") - raw.count("\ufffd".encode()))
        yield number, line.rstrip("\r\n")


def _raw_lines(path: Path, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    number = 0
    with open_unpacked(path) as file, damage_named(path, lambda: f"line {number}"):
        while line := file.readline(max_line_bytes + 1):
            number += 1
            if len(line) > max_line_bytes:
                raise InvalidInputError(
                    f"{path} line {number} has more than {max_line_bytes:,} bytes, the limit of a line"
                )
            yield number, line


def _without_byte_order_mark(line: bytes, path: Path) -> bytes:
    for mark, encoding in _OTHER_ENCODINGS.items():
        if line.startswith(mark):
            raise InvalidInputError(
                f"{path} is {encoding} text; UTF-8 expected. To convert it: iconv -f {encoding} -t UTF-8"
            )
    return line.removeprefix(codecs.BOM_UTF8)


def check_file(path: Path) -> None:
    """Raise NotFoundError or InvalidInputError unless there is a file."""
    if not path.exists():
        raise NotFoundError(f"no file at {path}")
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder, not a file")


def read_texts(path: Path) -> list[str]:
    """Return every line of a text file; raise InvalidInputError for an empty file or a blank line."""
    texts = []
    for number, line in iterate_lines(path):
        if not line.strip():
            raise InvalidInputError(f"{path} line {number} is empty; every line must hold a text")
        texts.append(line)
    if not texts:
        raise InvalidInputError(f"{path} is empty")
    return texts


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` and rename it into place only when the block succeeds.

    Raises InvalidInputError for a device, a pipe or a folder, which renaming would replace.
    """
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"{path} is not a regular file; it cannot be written whole or not at all")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
