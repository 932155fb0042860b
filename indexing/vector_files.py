"""The files of a folder of vectors, for who writes and who reads them.

    vectors.json                  what the rows are, and the sha256 of every file once all are written
    00000-<sha256>.npy …          ``shard_rows`` rows each, the last one perhaps fewer

A file's own hash is in its name: a shard is whole or has no name, and an unfinished folder says by its names
alone what is done.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.durable import durable_file, file_sha256, move_into_place
from indexing.errors import IndexFileError

VECTORS = "vectors.json"
FORMAT_VERSION = 1
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class VectorFiles:
    """What ``vectors.json`` says. ``files`` are the sha256 of the shards, None while they are written."""

    rows: int
    dimension: int
    dtype: str
    shard_rows: int
    extra: dict[str, Any]
    files: list[str] | None = None
    format_version: int = FORMAT_VERSION

    def bounds(self) -> list[tuple[int, int]]:
        """Return the first row of every shard and the row after its last."""
        return list(shard_bounds(self.rows, self.shard_rows))

    def header(self, shard: int) -> bytes:
        """Return the bytes of a shard's file before its first row."""
        start, stop = self.bounds()[shard]
        return npy_header(stop - start, self.dimension, np.dtype(self.dtype))

    def size_bytes(self, shard: int) -> int:
        """Return how long a shard's file is."""
        start, stop = self.bounds()[shard]
        return len(self.header(shard)) + (stop - start) * self.dimension * np.dtype(self.dtype).itemsize


def shard_bounds(rows: int, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of every shard and the row after its last."""
    for start in range(0, rows, shard_rows):
        yield start, min(start + shard_rows, rows)


def npy_header(rows: int, dimension: int, dtype: np.dtype[Any]) -> bytes:
    """Return how a .npy file of such a matrix begins."""
    file = io.BytesIO()
    fields = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": (rows, dimension)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def shard_path(folder: Path, shard: int, sha256: str) -> Path:
    """Return where a shard with this hash is."""
    return folder / f"{shard:05}-{sha256}.npy"


def named_shards(folder: Path) -> dict[int, str]:
    """Return the hash in the name of every shard that ``folder`` holds."""
    names = (path.stem.partition("-") for path in sorted(folder.glob("*-*.npy")))
    return {int(number): sha256 for number, _, sha256 in names if number.isdecimal()}


def check_shard(folder: Path, files: VectorFiles, shard: int, sha256: str, *, verify: bool = True) -> None:
    """Raise IndexFileError unless the shard's file has its size and, with ``verify``, its sha256."""
    path = shard_path(folder, shard, sha256)
    try:
        size = path.stat().st_size
        damaged = verify and size == files.size_bytes(shard) and file_sha256(path) != sha256
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    if size != files.size_bytes(shard):
        raise IndexFileError(f"{path}: has {size} bytes; {files.size_bytes(shard)} are expected")
    if damaged:
        raise IndexFileError(f"{path}: damaged; its sha256 is not the one in its name")


def read_rows(path: Path, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of ``shape`` that begins ``offset`` bytes into a file.

    Raises:
        IndexFileError: the file cannot be read or ends before.
    """
    rows: NDArray[Any] = np.empty(shape, dtype)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            read, view = 0, rows.reshape(-1).view(np.uint8)
            while read < len(view):
                got = file.readinto(view[read:].data)
                if not got:
                    raise IndexFileError(f"{path}: ends after {offset + read} bytes; truncated")
                read += got
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    return rows


def write_vector_files(folder: Path, files: VectorFiles) -> None:
    """Write ``vectors.json``, durably, in place of the one there may be."""
    with durable_file(folder / "vectors.tmp") as file:
        file.write(json.dumps(asdict(files), indent=2, sort_keys=True).encode() + b"\n")
    move_into_place(folder / "vectors.tmp", folder / VECTORS)


def read_vector_files(folder: Path) -> VectorFiles:
    """Return what the folder's ``vectors.json`` says.

    Raises:
        IndexFileError: there is none, it is damaged, or its format version is another.
    """
    path = folder / VECTORS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IndexFileError(f"{path}: not JSON: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise IndexFileError(f"{path}: format version {version!r}; this version reads {FORMAT_VERSION}")
    wrong = values.keys() ^ VectorFiles.__dataclass_fields__.keys()
    if wrong:
        raise IndexFileError(f"{path}: missing or unknown fields: {', '.join(sorted(wrong))}")
    return _checked(VectorFiles(**values), path)


def _checked(files: VectorFiles, path: Path) -> VectorFiles:
    for name, least in (("rows", 0), ("dimension", 1), ("shard_rows", 1)):
        value = getattr(files, name)
        if type(value) is not int or value < least:
            raise IndexFileError(f"{path}: {name} is {value!r}; expected a whole number of at least {least}")
    if files.dtype not in DTYPES:
        raise IndexFileError(f"{path}: dtype is {files.dtype!r}; expected {' or '.join(DTYPES)}")
    if not isinstance(files.extra, dict):
        raise IndexFileError(f"{path}: extra is {files.extra!r}; expected an object")
    if files.files is not None:
        shards = len(files.bounds())
        if not isinstance(files.files, list) or len(files.files) != shards:
            raise IndexFileError(f"{path}: files are {files.files!r}; expected {shards} hashes")
    return files


def check_extra(extra: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Raise IndexFileError where ``extra`` lacks a value of ``expected``, or has another."""
    for name, value in expected.items():
        if name not in extra or extra[name] != value:
            raise IndexFileError(f"{path}: {name} is {extra.get(name)!r}; expected {value!r}")
