"""Rows of vectors of which only those asked for are ever in memory.

They are in a folder that a `ShardWriter` made, or in a matrix or a .npy file that is there already, whose
slices are the shards. Files are read, not mapped, so that pages once read do not count as the process's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexFileError, IndexingError, VectorError
from indexing.manifest import StrPath
from indexing.vector_files import (
    VECTORS,
    VectorFiles,
    check_extra,
    check_shard,
    npy_header,
    read_rows,
    read_vector_files,
    shard_bounds,
    shard_path,
)
from indexing.vectors import check_vectors, normalize_rows

SHARD_ROWS = 131_072
_SHARD_BYTES = 256 << 20  # as float32; of long vectors a shard has fewer rows
_COPIED_ROWS = 8_192  # rows in memory a second time while they are checked or converted
_MAGIC = b"\x93NUMPY"


def rows_per_shard(dimension: int) -> int:
    """Return how many rows a shard has unless told: `SHARD_ROWS`, or a power of 2 that 256 MiB hold."""
    held = max(1, _SHARD_BYTES // (4 * max(1, dimension)))
    return min(SHARD_ROWS, 1 << (held.bit_length() - 1))


class RowSource(Protocol):
    """Where rows come from."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows of one shard, in the type they are stored in."""

    def elsewhere(self) -> RowSource | None:
        """Return what another process may read the same files with, if there are files."""


@dataclass(frozen=True, eq=False)
class VectorShards:
    """``rows`` unit vectors of ``dimension`` values, read by ranges; ``extra`` is their maker's own."""

    rows: int
    dimension: int
    dtype: np.dtype[Any]
    shard_rows: int
    source: RowSource = field(repr=False)
    hashes: tuple[str, ...] = field(repr=False)
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows

    def fingerprints(self) -> list[str]:
        """Return one sha256 per shard: that of its rows as a .npy file."""
        return list(self.hashes)

    def bounds(self) -> list[tuple[int, int]]:
        """Return the first row of every shard and the row after its last."""
        return list(shard_bounds(self.rows, self.shard_rows))

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the rows ``start`` to ``stop - 1`` as a new float32 array ``(stop - start, dimension)``.

        Raises:
            IndexingError: the range is not within the rows.
            IndexFileError: a file has been damaged or removed since it was opened.
        """
        if not 0 <= start <= stop <= self.rows:
            raise IndexingError(f"rows {start} to {stop} are not within the {self.rows} there are")
        vectors = np.empty((stop - start, self.dimension), np.float32)
        at = start
        while at < stop:
            end = min(stop, at + _COPIED_ROWS, (at // self.shard_rows + 1) * self.shard_rows)
            vectors[at - start : end - start] = self.source.read(at, end)
            at = end
        return vectors


def open_vector_shards(
    folder: StrPath, *, expected: Mapping[str, Any] | None = None, verify: bool = True
) -> VectorShards:
    """Open the finished folder that a `ShardWriter` made.

    ``expected`` are values that the folder's ``extra`` must have. ``verify`` reads every file once to compare
    its sha256; without it flipped bits go unnoticed.

    Raises:
        IndexFileError: unfinished, a file missing, truncated or damaged, or ``extra`` not as expected.
    """
    folder = Path(folder)
    files = read_vector_files(folder)
    check_extra(files.extra, expected or {}, folder / VECTORS)
    if files.files is None:
        raise IndexFileError(f"{folder}: unfinished; not all of its {files.rows} rows have been written")
    for shard, sha256 in enumerate(files.files):
        check_shard(folder, files, shard, sha256, verify=verify)
    return VectorShards(
        rows=files.rows,
        dimension=files.dimension,
        dtype=np.dtype(files.dtype),
        shard_rows=files.shard_rows,
        source=_Folder(folder, files),
        hashes=tuple(files.files),
        extra=files.extra,
    )


def shards_of_array(
    vectors: NDArray[Any] | StrPath, *, shard_rows: int | None = None, normalize: bool = False
) -> VectorShards:
    """Return a matrix ``(n, dim)``, or the .npy file that holds one, as shards, without a copy of it.

    Rows must have length 1; ``normalize`` scales them, whenever they are read. All are read once, to check
    and to fingerprint them. ``shard_rows`` None is `rows_per_shard`.

    Raises:
        VectorError: not a floating matrix, or a row with NaN, infinity or another length: the row is named.
        IndexFileError: the file cannot be read, is truncated or is no .npy file.
    """
    if shard_rows is not None and shard_rows < 1:
        raise IndexingError(f"shard_rows is {shard_rows}; expected at least 1")
    source: _Matrix | _NpyFile
    if isinstance(vectors, np.ndarray):
        source = _Matrix(vectors, normalize)
    else:
        source = _npy(Path(vectors), normalize)
    rows, dimension = source.shape
    shard_rows = shard_rows or rows_per_shard(dimension)
    keeps = source.dtype in (np.float16, np.float32) and not normalize
    dtype = source.dtype.newbyteorder("=") if keeps else np.dtype(np.float32)
    hashes = [_hash(source, start, stop, dtype) for start, stop in shard_bounds(rows, shard_rows)]
    return VectorShards(rows, dimension, dtype, shard_rows, source, tuple(hashes))


def _hash(source: _Matrix | _NpyFile, start: int, stop: int, dtype: np.dtype[Any]) -> str:
    """Check the rows of a shard and return the sha256 of their .npy file."""
    digest = hashlib.sha256(npy_header(stop - start, source.shape[1], dtype))
    for first in range(start, stop, _COPIED_ROWS):
        rows = source.read(first, min(first + _COPIED_ROWS, stop))
        check_vectors(rows, name=source.name, first_row=first)
        digest.update(np.ascontiguousarray(rows, dtype.newbyteorder("<")).data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Folder:
    folder: Path
    files: VectorFiles

    def read(self, start: int, stop: int) -> NDArray[Any]:
        shard, first = divmod(start, self.files.shard_rows)
        dtype = np.dtype(self.files.dtype).newbyteorder("<")
        offset = len(self.files.header(shard)) + first * self.files.dimension * dtype.itemsize
        path = shard_path(self.folder, shard, (self.files.files or [])[shard])
        return read_rows(path, offset, (stop - start, self.files.dimension), dtype)

    def elsewhere(self) -> RowSource:
        return replace(self, folder=self.folder.absolute())


@dataclass(frozen=True, eq=False)
class _Matrix:
    array: NDArray[Any]
    normalize: bool
    name: str = "vectors"

    def __post_init__(self) -> None:
        _check_form(self.array.shape, self.array.dtype, self.name)

    @property
    def shape(self) -> tuple[int, int]:
        rows, dimension = self.array.shape
        return rows, dimension

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        rows = self.array[start:stop]
        return normalize_rows(rows, name=self.name, first_row=start) if self.normalize else rows

    def elsewhere(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class _NpyFile:
    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    normalize: bool

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        offset = self.offset + start * self.shape[1] * self.dtype.itemsize
        rows = read_rows(self.path, offset, (stop - start, self.shape[1]), self.dtype)
        return normalize_rows(rows, name=self.name, first_row=start) if self.normalize else rows

    def elsewhere(self) -> RowSource:
        return replace(self, path=self.path.absolute())


def _npy(path: Path, normalize: bool) -> _NpyFile:
    try:
        with path.open("rb") as file:
            is_npy = file.read(len(_MAGIC)) == _MAGIC
        mapped = np.load(path, mmap_mode="r", allow_pickle=False) if is_npy else None
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise IndexFileError(f"{path}: not a whole .npy file of numbers: {error}") from error
    if not isinstance(mapped, np.memmap):
        raise IndexFileError(f"{path}: not a .npy file")
    _check_form(mapped.shape, mapped.dtype, str(path))
    if not mapped.flags.c_contiguous:
        raise VectorError(f"{path} is stored column by column (Fortran order); save it row by row")
    return _NpyFile(path, mapped.offset, mapped.shape, mapped.dtype, normalize)


def _check_form(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Raise what `check_vectors` does for an array of this shape and type."""
    if len(shape) != 2:
        raise VectorError(f"{name} have shape {shape}; expected two dimensions (n, dim)")
    check_vectors(np.empty((0, shape[1]), dtype), name=name)
