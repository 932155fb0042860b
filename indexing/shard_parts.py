"""One shard as another process gets it: from the same files where it sees them, else by its rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexFileError, IndexingError
from indexing.vector_files import npy_header
from indexing.vector_shards import RowSource, VectorShards

_COPIED_ROWS = 8_192  # rows in memory a second time while they are read and hashed


@dataclass(frozen=True)
class ShardPart:
    """Where a shard's rows ``start`` to ``stop - 1`` are, and the fingerprint that they have there.

    ``source`` is None where no file holds them.
    """

    source: RowSource | None
    start: int
    stop: int
    dimension: int
    dtype: str
    sha256: str

    def read(self) -> NDArray[np.float32]:
        """Return the rows as float32 ``(stop - start, dimension)``.

        Raises:
            IndexFileError: this process does not see the files, or other ones under their names.
        """
        if self.source is None:
            raise IndexFileError("the rows are in no file")
        dtype = np.dtype(self.dtype).newbyteorder("<")
        vectors = np.empty((self.stop - self.start, self.dimension), np.float32)
        digest = hashlib.sha256(npy_header(*vectors.shape, dtype))
        try:
            for first in range(self.start, self.stop, _COPIED_ROWS):
                rows = self.source.read(first, min(first + _COPIED_ROWS, self.stop))
                digest.update(np.ascontiguousarray(rows, dtype).data)
                vectors[first - self.start : first - self.start + len(rows)] = rows
        except IndexingError as error:
            raise IndexFileError(str(error)) from error
        if digest.hexdigest() != self.sha256:
            raise IndexFileError("the files hold other rows here")
        return vectors


def shard_part(shards: VectorShards, number: int) -> ShardPart:
    """Return a shard for another process."""
    start, stop = shards.bounds()[number]
    source = shards.source.elsewhere()
    return ShardPart(source, start, stop, shards.dimension, shards.dtype.str, shards.hashes[number])


def stored_rows(shards: VectorShards, number: int) -> NDArray[Any]:
    """Return the rows of a shard, as they are stored."""
    start, stop = shards.bounds()[number]
    return shards.source.read(start, stop)
