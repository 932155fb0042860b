"""The grid of blocks between all shards of two sides, and the names of the blocks' files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from indexing.block_files import VERSION, read_block
from indexing.block_lists import Lists
from indexing.errors import IndexFileError, IndexingError
from indexing.methods import Method
from indexing.vector_shards import VectorShards

Block = tuple[int, int]
"""The number of a shard of ``x`` and that of one of ``y``."""

Side = Literal["x", "y"]


@dataclass(frozen=True, eq=False)
class Grid:
    """The blocks between all shards of ``x`` and all of ``y``."""

    x: VectorShards
    y: VectorShards
    k: int
    method: Method

    def __post_init__(self) -> None:
        """Raise IndexingError where there can be no such grid."""
        if self.k < 1:
            raise IndexingError(f"k is {self.k}; expected at least 1")
        if self.x.dimension != self.y.dimension:
            raise IndexingError(
                f"x have dimension {self.x.dimension}, y have {self.y.dimension}; expected the same"
            )

    def blocks(self) -> list[Block]:
        """Return the shard numbers of all blocks."""
        return [(i, j) for i in range(len(self.x.hashes)) for j in range(len(self.y.hashes))]

    def rows(self, block: Block) -> int:
        """Return how many rows of ``x`` a block has."""
        start, stop = self.x.bounds()[block[0]]
        return stop - start

    def file_name(self, block: Block) -> str:
        """Return the name of a block's file."""
        shards = [self.x.hashes[block[0]], self.y.hashes[block[1]]]
        key = [VERSION, shards, self.k, self.method.name, self.method.complete()]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40] + ".block"

    def own_and_other(self, side: Side) -> tuple[VectorShards, VectorShards]:
        """Return the shards of a side, and those among which its neighbours are."""
        return (self.x, self.y) if side == "x" else (self.y, self.x)

    def kept(self, side: Side) -> int:
        """Return how many neighbours each row of a side has in the end."""
        return min(self.k, self.own_and_other(side)[1].rows)

    def parts(self, side: Side, number: int) -> list[tuple[int, str]]:
        """Return, for all blocks of a shard, the first row of the other shard, and the file's name."""
        other = self.own_and_other(side)[1]
        return [
            (start, self.file_name((number, j) if side == "x" else (j, number)))
            for j, (start, _) in enumerate(other.bounds())
        ]


def read_parts(folder: Path, parts: list[tuple[int, str]], side: Side) -> Iterator[tuple[int, Lists]]:
    """Yield the lists of one shard in all its blocks, as `merge_lists` takes them.

    Raises:
        IndexFileError: the file of a block is missing or damaged.
    """
    for start, name in parts:
        lists = read_block(folder / name)
        if lists is None:
            raise IndexFileError(f"{folder / name}: removed or damaged while it was needed")
        yield start, lists.x if side == "x" else lists.y
