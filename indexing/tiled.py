"""Neighbours of sets that need not fit into memory: a grid of blocks, each a file, merged in the end.

    <hash>.block                 the lists of one x shard and one y shard; the hash says which, and how found
    x_to_y.scores.npy, .rows.npy, y_to_x.scores.npy, .rows.npy      the lists of all rows

A block's file is named after the fingerprints of its two shards, ``k`` and the method, and one found whole is
not computed again. So a killed run goes on, and a shard added later costs its own row and column of blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.block_files import VERSION, read_block, write_block
from indexing.block_lists import Lists, block_lists, merge_lists
from indexing.durable import durable_file, move_into_place
from indexing.errors import IndexFileError, IndexingError
from indexing.exact import BothWays
from indexing.first_pass import Progress
from indexing.manifest import StrPath
from indexing.methods import Method, Work
from indexing.neighbour_plan import NeighbourPlan
from indexing.neighbours import Neighbours
from indexing.vector_files import npy_header
from indexing.vector_shards import VectorShards


@dataclass(frozen=True, eq=False)
class TiledNeighbours(BothWays):
    """Memory-mapped lists of both sides, and how many rows of each are proven to have the exact ones.

    Proven by a bound on the error of the first pass. All are, where the method is exact.
    """

    x_certified: int
    y_certified: int


def neighbours_of_shards(
    x: VectorShards,
    y: VectorShards,
    k: int,
    folder: StrPath,
    *,
    plan: NeighbourPlan,
    progress: Progress | None = None,
) -> TiledNeighbours:
    """Return the ``k`` nearest rows of ``y`` for each row of ``x``, and the reverse; ``folder`` keeps them.

    The results are memory-mapped, ``(n, min(k, m))`` and ``(m, min(k, n))``; among equal scores the lower row
    wins. What the folder holds already is not computed again. ``progress`` is called with the rows of ``x``
    done and all, each counted once per shard of ``y``.

    Raises:
        IndexingError: ``k`` is not positive, the sides differ in dimension, or the method does not work here.
        OSError: the folder cannot be written; what it holds is kept, and another call goes on.
    """
    grid = Grid(x, y, k, Method(plan.method, plan.parameters))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fill(grid, folder, threads=plan.threads or faiss.omp_get_max_threads(), progress=progress)
    return merged(grid, folder)


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

    def blocks(self) -> list[tuple[int, int]]:
        """Return the shard numbers of all blocks."""
        return [(i, j) for i in range(len(self.x.hashes)) for j in range(len(self.y.hashes))]

    def file_name(self, block: tuple[int, int]) -> str:
        """Return the name of a block's file."""
        shards = [self.x.hashes[block[0]], self.y.hashes[block[1]]]
        key = [VERSION, shards, self.k, self.method.name, self.method.complete()]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40] + ".block"


def fill(grid: Grid, folder: Path, *, threads: int = 1, progress: Progress | None = None) -> None:
    """Compute the blocks that ``folder`` does not hold yet."""
    total, done, kept = grid.x.rows * len(grid.y.hashes), 0, _Kept(grid.x)
    for block in grid.blocks():
        start, stop = grid.x.bounds()[block[0]]
        path = folder / grid.file_name(block)
        if read_block(path) is None:
            report = _shifted(progress, done, total)
            y = grid.y.read(*grid.y.bounds()[block[1]])
            write_block(path, block_lists(kept.read(block[0]), y, grid.method, Work(grid.k, threads, report)))
        done += stop - start
        if progress:
            progress(done, total)


class _Kept:
    """The shard read last, which the next block mostly needs again."""

    def __init__(self, shards: VectorShards) -> None:
        self._shards = shards
        self._number: int | None = None
        self._vectors = np.empty((0, shards.dimension), np.float32)

    def read(self, number: int) -> NDArray[np.float32]:
        if number != self._number:
            self._vectors = np.empty((0, self._shards.dimension), np.float32)  # never two in memory
            self._vectors, self._number = self._shards.read(*self._shards.bounds()[number]), number
        return self._vectors


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def merged(grid: Grid, folder: Path) -> TiledNeighbours:
    """Merge the blocks of ``folder``, all of which must be there, into lists of all rows.

    Raises:
        IndexFileError: a block is missing or damaged.
        OSError: the lists cannot be written.
    """
    x_to_y, x_certified = _merge_side(grid, folder, "x")
    y_to_x, y_certified = _merge_side(grid, folder, "y")
    return TiledNeighbours(x_to_y, y_to_x, x_certified, y_certified)


def _merge_side(grid: Grid, folder: Path, side: str) -> tuple[Neighbours, int]:
    own, other = (grid.x, grid.y) if side == "x" else (grid.y, grid.x)
    shape = (own.rows, min(grid.k, other.rows))
    if 0 in shape:
        return Neighbours(np.empty(shape, np.float32), np.empty(shape, np.int64)), own.rows
    name = "x_to_y" if side == "x" else "y_to_x"
    paths = [folder / f"{name}.scores.npy", folder / f"{name}.rows.npy"]
    temporary = [path.with_suffix(".tmp") for path in paths]
    certified = 0
    with durable_file(temporary[0]) as scores, durable_file(temporary[1]) as rows:
        scores.write(npy_header(*shape, np.dtype(np.float32)))
        rows.write(npy_header(*shape, np.dtype(np.int64)))
        for number in range(len(own.hashes)):
            found = merge_lists(_parts(grid, folder, side, number), shape[1])
            scores.write(np.ascontiguousarray(found.neighbours.scores, "<f4").data)
            rows.write(np.ascontiguousarray(found.neighbours.rows, "<i8").data)
            certified += int(found.certified.sum())
    for source, target in zip(temporary, paths, strict=True):
        move_into_place(source, target)
    return Neighbours(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")), certified


def _parts(grid: Grid, folder: Path, side: str, number: int) -> Iterator[tuple[int, Lists]]:
    """The lists of one shard in all blocks, and the first row of each block's other shard."""
    for other, (start, _) in enumerate((grid.y if side == "x" else grid.x).bounds()):
        path = folder / grid.file_name((number, other) if side == "x" else (other, number))
        lists = read_block(path)
        if lists is None:
            raise IndexFileError(f"{path}: removed or damaged while it was needed")
        yield start, lists.x if side == "x" else lists.y
