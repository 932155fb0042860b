"""Packed files, known by their suffix: .gz, .xz and .zst. Packing the same bytes gives the same bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from embedsvc.errors import InvalidInputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED_SUFFIXES = (".gz", ".xz", ".zst")
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstd.ZstdError)
_BUFFER_BYTES = 1 << 16


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading; a packed one gives what is inside."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open, ".zst": zstd.open}.get(path.suffix, open)
    return cast(IO[bytes], opener(path, "rb"))


@contextlib.contextmanager
def damage_named(path: Path, place: Callable[[], str]) -> Iterator[None]:
    """Turn a damaged archive, noticed while reading, into InvalidInputError; ``place`` is the last good."""
    try:
        yield
    except _DAMAGED as error:
        raise InvalidInputError(f"{path} after {place()}: damaged {path.suffix} file: {error}") from error


@contextlib.contextmanager
def packing(file: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    """Give a file whose content arrives packed in ``file``; any suffix but the known ones packs nothing.

    No time, name or thread count enters the archive.
    """
    if suffix not in PACKED_SUFFIXES:
        yield file
        return
    with _packer(file, suffix) as packer, io.BufferedWriter(packer, _BUFFER_BYTES) as buffered:
        yield buffered


def _packer(file: IO[bytes], suffix: str) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
    if suffix == ".xz":
        return lzma.LZMAFile(file, "wb", preset=6)
    return zstd.ZstdFile(file, "wb", level=6)


def without_packing(path: Path) -> Path:
    """Return the path without the suffix of an archive: pairs.tsv.gz → pairs.tsv."""
    return path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
