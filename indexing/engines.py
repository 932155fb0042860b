"""Where blocks are computed and merged: in this process, or (`ray_engine`) on many machines.

An engine only computes. What it returns goes into files by the caller's hand, in `tiled`: there is one journal,
and whatever happens to an engine, what it had finished is there.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.block_files import block_content
from indexing.block_lists import Merged, block_lists, merge_lists
from indexing.first_pass import Progress
from indexing.grid import Block, Grid, Side, read_parts
from indexing.methods import Work
from indexing.neighbour_plan import NeighbourPlan
from indexing.vector_shards import VectorShards


class Engine(Protocol):
    """What computes blocks and merges them."""

    def blocks(
        self, grid: Grid, wanted: Sequence[Block], plan: NeighbourPlan, progress: Progress | None
    ) -> Generator[tuple[Block, bytes]]:
        """Yield each of the blocks wanted, in any order, with the content of its file.

        ``progress`` is called, between and during blocks, with the rows of ``x`` done and all, both counted
        over the blocks wanted; what it raises ends the work, as closing the generator does.
        """

    def merges(self, grid: Grid, folder: Path, side: Side) -> Generator[Merged]:
        """Yield the lists of every shard of a side, in order, merged from the blocks in ``folder``."""


class LocalEngine:
    """This process: one block after the other, each on all threads of the plan."""

    def blocks(
        self, grid: Grid, wanted: Sequence[Block], plan: NeighbourPlan, progress: Progress | None
    ) -> Generator[tuple[Block, bytes]]:
        """Yield the blocks in the order in which they are wanted."""
        threads = plan.threads or faiss.omp_get_max_threads()
        total, done, kept = sum(grid.rows(block) for block in wanted), 0, _Kept(grid.x)
        for block in wanted:
            work = Work(grid.k, threads, _shifted(progress, done, total))
            y = grid.y.read(*grid.y.bounds()[block[1]])
            lists = block_lists(kept.read(block[0]), y, grid.method, work)
            done += grid.rows(block)
            yield block, block_content(lists)

    def merges(self, grid: Grid, folder: Path, side: Side) -> Generator[Merged]:
        """Yield the lists, one shard's in memory at once."""
        for number in range(len(grid.own_and_other(side)[0].hashes)):
            parts = read_parts(folder, grid.parts(side, number), side)
            yield merge_lists(parts, grid.kept(side))


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
