"""The engine seam: what is on disk is not computed again, and a shard more costs its row or column."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

from indexing import NeighbourPlan, VectorShards, neighbours_of_shards, shards_of_array
from indexing.engines import LocalEngine
from indexing.first_pass import Progress
from indexing.grid import Block, Grid
from tests.indexing.indexing_reference import unit_rows

EXACT = NeighbourPlan("exact", threads=1)


class Counting(LocalEngine):
    """The local engine, which notes the blocks that it computes and perhaps fails after some."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.computed: list[Block] = []
        self.fails_after = fails_after

    def blocks(
        self, grid: Grid, wanted: Sequence[Block], plan: NeighbourPlan, progress: Progress | None
    ) -> Generator[tuple[Block, bytes]]:
        for found in super().blocks(grid, wanted, plan, progress):
            if len(self.computed) == self.fails_after:
                raise KeyboardInterrupt
            self.computed.append(found[0])
            yield found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(rows: np.ndarray) -> VectorShards:
    return shards_of_array(rows, shard_rows=50)


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray]:
    return unit_rows(200, 24, seed=1), unit_rows(230, 24, seed=2)


def test_a_shard_added_computes_only_its_row_and_column(sides: tuple, tmp_path: Path) -> None:
    x, y = sides
    first, more_x, more_y = Counting(), Counting(), Counting()
    neighbours_of_shards(shards(x[:150]), shards(y[:200]), 3, tmp_path / "a", plan=EXACT, engine=first)
    assert len(first.computed) == 3 * 4
    neighbours_of_shards(shards(x), shards(y[:200]), 3, tmp_path / "a", plan=EXACT, engine=more_x)
    assert more_x.computed == [(3, 0), (3, 1), (3, 2), (3, 3)]
    grown = neighbours_of_shards(shards(x), shards(y), 3, tmp_path / "a", plan=EXACT, engine=more_y)
    assert more_y.computed == [(0, 4), (1, 4), (2, 4), (3, 4)]
    anew = neighbours_of_shards(shards(x), shards(y), 3, tmp_path / "b", plan=EXACT)
    for part in ("x_to_y", "y_to_x"):
        np.testing.assert_array_equal(getattr(grown, part).rows, getattr(anew, part).rows)
        np.testing.assert_array_equal(getattr(grown, part).scores, getattr(anew, part).scores)
    assert files(tmp_path / "a").items() >= files(tmp_path / "b").items()


def test_rows_put_into_an_unfinished_shard_leave_the_full_ones(sides: tuple, tmp_path: Path) -> None:
    x, y = sides
    neighbours_of_shards(shards(x[:130]), shards(y[:100]), 3, tmp_path, plan=EXACT)
    engine = Counting()
    neighbours_of_shards(shards(x[:140]), shards(y[:100]), 3, tmp_path, plan=EXACT, engine=engine)
    assert engine.computed == [(2, 0), (2, 1)]


def test_blocks_of_an_engine_that_fails_are_kept(sides: tuple, tmp_path: Path) -> None:
    x, y = map(shards, sides)
    with pytest.raises(KeyboardInterrupt):
        neighbours_of_shards(x, y, 3, tmp_path, plan=EXACT, engine=Counting(fails_after=7))
    engine = Counting()
    neighbours_of_shards(x, y, 3, tmp_path, plan=EXACT, engine=engine)
    assert len(engine.computed) == 4 * 5 - 7


def test_progress_counts_what_was_there_and_never_falls(sides: tuple, tmp_path: Path) -> None:
    x, y = map(shards, sides)
    neighbours_of_shards(shards(sides[0][:150]), y, 3, tmp_path, plan=EXACT)
    told: list[tuple[int, int]] = []
    neighbours_of_shards(x, y, 3, tmp_path, plan=EXACT, progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert (told[0][0] >= 750, told[-1], {total for _, total in told}) == (True, (1000, 1000), {1000})
    neighbours_of_shards(x, y, 3, tmp_path, plan=EXACT, progress=lambda *step: told.append(step))
    assert told[-1] == (1000, 1000)
