"""The neighbours of both sides on disk, with what the manifest says about how they were found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.mining.engine import open_engine
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.plants import without_rows
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.side_vectors import SideVectors
from indexing import (
    BothWays,
    IndexingError,
    NeighbourPlan,
    TiledNeighbours,
    VectorShards,
    neighbours_of_shards,
    plan_neighbours,
    sampled_recall,
)


@dataclass(frozen=True, eq=False)
class FoundNeighbours:
    """Neighbours of both sides, those of texts the model does not know taken out, and facts about them."""

    both: BothWays
    facts: dict[str, Any]


def find_neighbours(
    source: SideVectors,
    target: SideVectors,
    k: int,
    folder: Path,
    options: MiningOptions,
    report: Report,
) -> FoundNeighbours:
    """Return the k neighbours of every row of both sides; what ``folder`` has of them is not computed again.

    Raises InvalidInputError for a method or a limit of memory that does not work here, or a Ray cluster that
    cannot be used; MissingExtraError without Ray.
    """

    def progress(done: int, total: int) -> None:
        report(Step("neighbours", done, total, "rows"))

    x, y = source.shards, target.shards
    try:
        plan = plan_neighbours(
            len(x),
            len(y),
            x.dimension,
            k,
            method=options.neighbours,
            memory_bytes=options.memory,
            threads=options.threads,
            shard_rows=max(x.shard_rows, y.shard_rows),
        )
        with open_engine(options.engine, options.ray_address, options.threads) as engine:
            both = neighbours_of_shards(x, y, k, folder, plan=plan, engine=engine, progress=progress)
    except IndexingError as error:
        raise InvalidInputError(f"neighbours: {error}", param="neighbours") from error
    facts = {"method": plan.method, "parameters": dict(plan.parameters), **_quality(x, y, both, plan)}
    if len(source.unknown) or len(target.unknown):
        return FoundNeighbours(without_rows(both, source.unknown, target.unknown), facts)
    return FoundNeighbours(both, facts)


def _quality(x: VectorShards, y: VectorShards, both: TiledNeighbours, plan: NeighbourPlan) -> dict[str, Any]:
    """Return how many rows have proven neighbours and, of a method that may miss some, the recall."""
    certified = {"source_certified": both.x_certified, "target_certified": both.y_certified}
    if plan.method in ("ivf", "truncated"):
        return {**certified, "recall": asdict(sampled_recall(x, y, both))}
    return certified
