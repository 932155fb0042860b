"""Read text files line by line, checked (UTF-8, not binary); write files whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from embedsvc.errors import InvalidInputError, NotFoundError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def iterate_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); .gz and .xz files are unpacked on the way.

    Raises InvalidInputError at the first bad byte.
    """
    check_file(path)
    opener = _OPENERS.get(path.suffix, Path.open)
    with opener(path, "rb") as file:
        for number, raw in enumerate(_unpacked(file, path), 1):
            if b"\0" in raw:
                raise InvalidInputError(f"{path} line {number}: a NUL byte; this is not a text file")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = f"byte {raw[error.start]:#04x} at position {error.start}"
                raise InvalidInputError(f"{path} line {number}: {where} is not UTF-8") from error
            yield number, line.rstrip("\r\n")


def _unpacked(file: IO[bytes], path: Path) -> Iterator[bytes]:
    number = 0
    try:
        for number, line in enumerate(file, 1):  # noqa: B007 - used when the next line fails
            yield line
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InvalidInputError(f"{path} after line {number}: damaged {path.suffix} file: {error}") from error


def check_file(path: Path) -> None:
    """Raise NotFoundError or InvalidInputError unless there is a file."""
    if not path.exists():
        raise NotFoundError(f"no file at {path}")
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder, not a file")


def without_compression(path: Path) -> Path:
    """Return the path without the suffix of a compression: notes.txt.gz → notes.txt."""
    return path.with_suffix("") if path.suffix in _OPENERS else path


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
