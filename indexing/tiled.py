"""Neighbours of sets that need not fit into memory: a grid of blocks, each a file, merged in the end.

    <hash>.block                 the lists of one x shard and one y shard; the hash says which, and how found
    x_to_y.scores.npy, .rows.npy, y_to_x.scores.npy, .rows.npy      the lists of all rows

A block's file is named after the fingerprints of its two shards, ``k`` and the method, and one found whole is
not computed again. So a killed run goes on, and a shard added later costs its own row and column of blocks.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexing.block_files import read_block, write_block
from indexing.durable import durable_file, move_into_place
from indexing.engines import Engine, LocalEngine
from indexing.exact import BothWays
from indexing.first_pass import Progress
from indexing.grid import Grid, Side
from indexing.manifest import StrPath
from indexing.methods import Method
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
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> TiledNeighbours:
    """Return the ``k`` nearest rows of ``y`` for each row of ``x``, and the reverse; ``folder`` keeps them.

    The results are memory-mapped, ``(n, min(k, m))`` and ``(m, min(k, n))``; among equal scores the lower row
    wins. What the folder holds already is not computed again. ``engine`` is where the rest is computed
    (`engines`); None is here. ``progress`` is called with the rows of ``x`` done and all, each counted once
    per shard of ``y``; what it raises ends the work.

    Raises:
        IndexingError: ``k`` is not positive, the sides differ in dimension, or the method does not work here.
        OSError: the folder cannot be written; what it holds is kept, and another call goes on.
    """
    grid = Grid(x, y, k, Method(plan.method, plan.parameters))
    engine = engine or LocalEngine()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fill(grid, folder, plan, engine, progress)
    return merged(grid, folder, engine)


def fill(
    grid: Grid, folder: Path, plan: NeighbourPlan, engine: Engine, progress: Progress | None = None
) -> None:
    """Compute the blocks that ``folder`` does not hold yet."""
    total = grid.x.rows * len(grid.y.hashes)
    missing = [block for block in grid.blocks() if read_block(folder / grid.file_name(block)) is None]
    kept = total - sum(grid.rows(block) for block in missing)

    def report(done: int, _: int) -> None:
        if progress:
            progress(kept + done, total)

    with contextlib.closing(engine.blocks(grid, missing, plan, report)) as found:
        done = 0
        for block, content in found:
            write_block(folder / grid.file_name(block), content)
            done += grid.rows(block)
            report(done, total)
    if not missing:
        report(0, total)


def merged(grid: Grid, folder: Path, engine: Engine) -> TiledNeighbours:
    """Merge the blocks of ``folder``, all of which must be there, into lists of all rows.

    Raises:
        IndexFileError: a block is missing or damaged.
        OSError: the lists cannot be written.
    """
    x_to_y, x_certified = _merge_side(grid, folder, engine, "x")
    y_to_x, y_certified = _merge_side(grid, folder, engine, "y")
    return TiledNeighbours(x_to_y, y_to_x, x_certified, y_certified)


def _merge_side(grid: Grid, folder: Path, engine: Engine, side: Side) -> tuple[Neighbours, int]:
    shape = (grid.own_and_other(side)[0].rows, grid.kept(side))
    if 0 in shape:
        return Neighbours(np.empty(shape, np.float32), np.empty(shape, np.int64)), shape[0]
    name = "x_to_y" if side == "x" else "y_to_x"
    paths = [folder / f"{name}.scores.npy", folder / f"{name}.rows.npy"]
    temporary = [path.with_suffix(".tmp") for path in paths]
    certified = 0
    with (
        durable_file(temporary[0]) as scores,
        durable_file(temporary[1]) as rows,
        contextlib.closing(engine.merges(grid, folder, side)) as merges,
    ):
        scores.write(npy_header(*shape, np.dtype(np.float32)))
        rows.write(npy_header(*shape, np.dtype(np.int64)))
        for found in merges:
            scores.write(np.ascontiguousarray(found.neighbours.scores, "<f4").data)
            rows.write(np.ascontiguousarray(found.neighbours.rows, "<i8").data)
            certified += int(found.certified.sum())
    for source, target in zip(temporary, paths, strict=True):
        move_into_place(source, target)
    return Neighbours(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")), certified
