"""Neighbours of sets that need not fit into memory: a grid of blocks, each a file, merged at the end.

    <name>.block …               the lists of one x shard and one y shard; the name says of which, and how
    x_to_y.scores.npy …          the lists of all rows

A block's file is named after the fingerprints of its two shards, ``k`` and the method: one found whole is not
computed again. So a killed run goes on, and a shard added later costs its own row and column of blocks.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indexing.block_lists import BlockLists, block_lists, merge_lists
from indexing.durable import durable_file, move_into_place
from indexing.errors import IndexFileError, IndexingError
from indexing.exact import BothWays
from indexing.manifest import StrPath
from indexing.neighbours import Neighbours
from indexing.vector_shards import VectorShards

Progress = Callable[[int, int], None]
_BLOCK_VERSION = 1


@dataclass(frozen=True)
class NeighbourPlan:
    """How neighbours are found, and what that is expected to take."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    reason: str = ""


def neighbours_of_shards(
    x: VectorShards,
    y: VectorShards,
    k: int,
    folder: StrPath,
    *,
    plan: NeighbourPlan,
    progress: Progress | None = None,
) -> BothWays:
    """Return the ``k`` nearest rows of ``y`` for each row of ``x``, and the reverse; ``folder`` keeps them.

    The results are memory-mapped, ``(n, min(k, m))`` and ``(m, min(k, n))``; among equal scores
    the lower row wins. Blocks that the folder holds already are not computed again.

    Raises:
        IndexingError: ``k`` is not positive, or the two differ in dimension.
        OSError: the folder cannot be written; what it holds is kept, and another call goes on.
    """
    if k < 1:
        raise IndexingError(f"k is {k}; expected at least 1")
    if x.dimension != y.dimension:
        raise IndexingError(f"x have dimension {x.dimension}, y have {y.dimension}; expected the same")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = _Grid(x, y, k, folder, plan)
    grid.fill(progress)
    return BothWays(grid.merged("x_to_y"), grid.merged("y_to_x"))


@dataclass(frozen=True, eq=False)
class _Grid:
    x: VectorShards
    y: VectorShards
    k: int
    folder: Path
    plan: NeighbourPlan

    def path(self, i: int, j: int) -> Path:
        key = [
            _BLOCK_VERSION,
            self.x.hashes[i],
            self.y.hashes[j],
            self.k,
            self.plan.method,
            self.plan.parameters,
        ]
        return (
            self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]}.block"
        )

    def fill(self, progress: Progress | None) -> None:
        blocks = [(i, j) for i in range(len(self.x.hashes)) for j in range(len(self.y.hashes))]
        for done, (i, j) in enumerate(blocks):
            if read_block(self.path(i, j)) is None:
                x, y = self.x.read(*self.x.bounds()[i]), self.y.read(*self.y.bounds()[j])
                write_block(self.path(i, j), block_lists(x, y, self.k))
            if progress:
                progress(done + 1, len(blocks))

    def merged(self, name: str) -> Neighbours:
        own, other = (self.x, self.y) if name == "x_to_y" else (self.y, self.x)
        k = min(self.k, other.rows)
        paths = [self.folder / f"{name}.{part}.npy" for part in ("scores", "rows")]
        temporary = [path.with_suffix(".tmp") for path in paths]
        if not own.rows or not k:
            return Neighbours(np.empty((own.rows, k), np.float32), np.empty((own.rows, k), np.int64))
        scores, rows = (
            np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(own.rows, k))
            for path, dtype in zip(temporary, (np.float32, np.int64), strict=True)
        )
        for i, (start, stop) in enumerate(own.bounds()):
            best = merge_lists(self._parts(name, i), k)
            scores[start:stop], rows[start:stop] = best.scores, best.rows
        scores.flush()
        rows.flush()
        for source, target in zip(temporary, paths, strict=True):
            move_into_place(source, target)
        return Neighbours(*(np.load(path, mmap_mode="r") for path in paths))

    def _parts(self, name: str, i: int) -> Iterator[tuple[int, Neighbours]]:
        other = self.y if name == "x_to_y" else self.x
        for j, (start, _) in enumerate(other.bounds()):
            path = self.path(i, j) if name == "x_to_y" else self.path(j, i)
            lists = read_block(path)
            if lists is None:
                raise IndexFileError(f"{path}: removed or damaged while it was in use")
            yield start, getattr(lists, name)


def write_block(path: Path, lists: BlockLists) -> None:
    """Write the lists of a block, durably, with a checksum."""
    content = io.BytesIO()
    for part in (lists.x_to_y, lists.y_to_x):
        np.save(content, part.scores)
        np.save(content, part.rows.astype(np.int32))
    temporary = path.with_suffix(".tmp")
    with durable_file(temporary) as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.write(content.getbuffer())
    move_into_place(temporary, path)


def read_block(path: Path) -> BlockLists | None:
    """Return the lists of a block; None where the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(memoryview(content)[32:]).digest() != content[:32]:
        return None
    file = io.BytesIO(content)
    file.seek(32)
    parts = [np.load(file) for _ in range(4)]
    return BlockLists(Neighbours(parts[0], parts[1]), Neighbours(parts[2], parts[3]))
