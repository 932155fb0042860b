"""Write vectors as they are made; what was written when the process died need not be made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from indexing.durable import move_into_place
from indexing.errors import IndexFileError, IndexingError, VectorError
from indexing.manifest import StrPath
from indexing.vector_files import (
    DTYPES,
    VECTORS,
    VectorFiles,
    check_extra,
    check_shard,
    named_shards,
    read_vector_files,
    shard_path,
    write_vector_files,
)
from indexing.vector_shards import VectorShards, open_vector_shards, rows_per_shard
from indexing.vectors import check_vectors


class ShardWriter:
    """A folder of vectors that is being written, row after row; one writer at a time.

    ``next_row`` is the first row that is not there yet: 0, or after an interruption where to go on.
    """

    def __init__(
        self,
        folder: StrPath,
        *,
        rows: int,
        dimension: int,
        dtype: str = "float16",
        shard_rows: int | None = None,
        extra: Mapping[str, Any],
    ) -> None:
        """Begin the folder, or go on with one begun with the same arguments.

        ``shard_rows`` None is `rows_per_shard`.

        Raises:
            IndexFileError: the folder was begun with other arguments.
            IndexingError: an argument is out of range, or ``extra`` is not JSON.
            OSError: the folder cannot be written.
        """
        shard_rows = rows_per_shard(dimension) if shard_rows is None else shard_rows
        if rows < 0 or dimension < 1 or shard_rows < 1:
            raise IndexingError(
                f"rows {rows}, dimension {dimension}, shard_rows {shard_rows}; expected at least 0, 1 and 1"
            )
        if dtype not in DTYPES:
            raise IndexingError(f"dtype is {dtype!r}; expected {' or '.join(DTYPES)}")
        self.folder = Path(folder)
        self._files = VectorFiles(rows, dimension, dtype, shard_rows, _as_json(extra))
        self._bounds = self._files.bounds()
        self._begin()
        self._hashes = self._whole_shards()
        self.next_row = min(len(self._hashes) * shard_rows, rows)
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()

    def write(self, vectors: NDArray[np.float32]) -> None:
        """Add the next rows ``(any number, dimension)``; a shard is on disk once its last row is given.

        Raises:
            VectorError: a row with NaN, of another width or length, or more rows than were promised.
            OSError: the disk is full, or the like; a new writer goes on after the last whole shard.
        """
        vectors = check_vectors(
            vectors, dimension=self._files.dimension, name="vectors", first_row=self.next_row
        )
        if self.next_row + len(vectors) > self._files.rows:
            raise VectorError(
                f"{self.next_row + len(vectors)} rows were given; {self._files.rows} were promised"
            )
        stored = vectors.astype(np.dtype(self._files.dtype).newbyteorder("<"))
        while len(stored):
            stop = self._bounds[len(self._hashes)][1]
            part, stored = np.split(stored, [stop - self.next_row])
            self._append(part)
            if self.next_row == stop:
                self._finish_shard()

    def close(self) -> VectorShards:
        """Finish the folder and return it, opened.

        Raises:
            IndexingError: rows are missing; the folder stays unfinished.
            OSError: the folder cannot be written.
        """
        if self.next_row < self._files.rows:
            raise IndexingError(f"{self.next_row} rows were written; {self._files.rows} were promised")
        write_vector_files(self.folder, replace(self._files, files=self._hashes))
        return open_vector_shards(self.folder, verify=False)

    def abandon(self) -> None:
        """Close the file of the unfinished shard; its rows have to be written again."""
        if self._file is not None:
            with suppress(OSError):  # a disk that is full, for what is still to be written
                self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)
            self.next_row = len(self._hashes) * self._files.shard_rows

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    @property
    def _temporary(self) -> Path:
        return self.folder / "shard.tmp"

    def _begin(self) -> None:
        if not (self.folder / VECTORS).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_vector_files(self.folder, self._files)
            return
        found = read_vector_files(self.folder)
        for name in ("rows", "dimension", "dtype", "shard_rows"):
            if getattr(found, name) != getattr(self._files, name):
                raise IndexFileError(
                    f"{self.folder / VECTORS}: {name} is {getattr(found, name)!r}; "
                    f"expected {getattr(self._files, name)!r}"
                )
        # A value that is there but not wanted is a difference, too.
        wanted = dict.fromkeys(found.extra) | self._files.extra
        check_extra(found.extra, wanted, self.folder / VECTORS)

    def _whole_shards(self) -> list[str]:
        """The hashes of the first shards that are on disk, whole."""
        named, hashes = named_shards(self.folder), list[str]()
        for shard in range(len(self._bounds)):
            try:
                check_shard(self.folder, self._files, shard, named.get(shard, ""))
            except IndexFileError:
                break
            hashes.append(named[shard])
        return hashes

    def _append(self, rows: NDArray[Any]) -> None:
        try:
            if self._file is None:
                header = self._files.header(len(self._hashes))
                self._file, self._digest = self._temporary.open("wb"), hashlib.sha256(header)
                self._file.write(header)
            self._file.write(rows.data)
        except OSError as error:
            self.abandon()
            raise OSError(error.errno, error.strerror, str(self._temporary)) from error
        self._digest.update(rows.data)
        self.next_row += len(rows)

    def _finish_shard(self) -> None:
        file, sha256 = self._file, self._digest.hexdigest()
        assert file is not None
        try:
            with file:
                file.flush()
                os.fsync(file.fileno())
            self._remove_damaged(len(self._hashes))
            move_into_place(self._temporary, shard_path(self.folder, len(self._hashes), sha256))
        except OSError as error:
            self.abandon()
            raise OSError(error.errno, error.strerror, str(self._temporary)) from error
        self._file = None
        self._hashes.append(sha256)

    def _remove_damaged(self, shard: int) -> None:
        """Remove a file that has the number of this shard but was not whole."""
        for path in self.folder.glob(f"{shard:05}-*.npy"):
            path.unlink()


def _as_json(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they will be read again: lists for tuples, and so on."""
    try:
        values: dict[str, Any] = json.loads(json.dumps(dict(extra)))
    except (TypeError, ValueError) as error:
        raise IndexingError(f"extra cannot be written as JSON: {error}") from error
    return values


def grow_shards(folder: StrPath, *, rows: int, extra: Mapping[str, Any]) -> None:
    """Make a folder of vectors, finished or not, one that a `ShardWriter` goes on with up to ``rows`` rows.

    Its full shards stay; a last one that is not full has to be written again. That the rows there are the
    first of those to come is for the caller to know.

    Raises:
        IndexFileError: it is no folder of vectors.
        IndexingError: it has more rows.
        OSError: the folder cannot be written.
    """
    found = read_vector_files(Path(folder))
    if rows < found.rows:
        raise IndexingError(f"{folder} has {found.rows} rows; it cannot grow to {rows}")
    write_vector_files(Path(folder), replace(found, rows=rows, extra=dict(extra), files=None))
