"""How a pool of vectors is divided into graphs, and of which kinds they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from indexing.calibrate import Calibration
from indexing.errors import IndexingError
from indexing.kinds import Hnsw, Kind
from indexing.memory import choose_together

POOL = "*"
"""What the graph of all rows is called among those of groups."""

_LEAST = {"flat_rows": 0, "shard_rows": 0, "k": 1, "memory_bytes": 0}


@dataclass(frozen=True)
class ShardOptions:
    """How a pool is divided; sizes in rows.

    ``flat_rows``: a pool up to this size has no graph. ``shard_rows``: a group up to this size has none
    of its own. ``recall`` is what the graphs are calibrated to at ``k``, for every group. ``graph`` is
    the kind of all graphs; with None each gets the kind that `choose_together` finds for it, so that
    together they take at most ``memory_bytes``, and a ``recall`` of 1 means that there are none.
    """

    flat_rows: int = 10_000
    shard_rows: int = 5_000
    recall: float = 0.95
    k: int = 10
    graph: Kind | None = field(default_factory=lambda: Hnsw(storage="sq8"))
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise IndexingError(f"recall is {self.recall}; expected more than 0, at most 1")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise IndexingError(f"{name} is {value}; expected at least {least}")
        if self.graph is not None and self.memory_bytes is not None:
            raise IndexingError(
                f"memory_bytes is {self.memory_bytes}, which chooses kinds; graph is {self.graph.name}"
            )


@dataclass(frozen=True)
class GraphStep:
    """A graph of ``rows`` rows (label, or "*" for the pool), about to be built, or built if calibrated.

    ``why`` is the reason for its kind, "" if the options say the kind. It is graph ``number`` (from 1) of
    ``of``; ``left`` are the rows of this one and of those after it.
    """

    label: str
    rows: int
    kind: Kind
    why: str
    number: int
    of: int
    left: int
    calibration: Calibration | None = None


def graph_steps(counts: Mapping[str, int], dimension: int, options: ShardOptions) -> list[GraphStep]:
    """Return the graphs for groups of these ``counts`` (rows by label): the smallest first, the pool last.

    Raises:
        IndexingError: the graphs do not fit into ``memory_bytes``, or a label is that of the pool.
    """
    if POOL in counts:
        raise IndexingError(f"{counts[POOL]} rows have the label {POOL!r}, which stands for all rows")
    total = sum(counts.values())
    if total <= options.flat_rows or (options.graph is None and options.recall == 1):
        return []
    large = [label for label in counts if options.shard_rows < counts[label] < total]
    rows = {label: counts[label] for label in sorted(large, key=lambda label: counts[label])} | {POOL: total}
    if options.graph is None:
        chosen = choose_together(rows, dimension, recall=options.recall, memory_bytes=options.memory_bytes)
        kinds = {label: (choice.kind, choice.reason) for label, choice in chosen.items()}
    else:
        kinds = dict.fromkeys(rows, (options.graph, ""))
    left = [sum(list(rows.values())[place:]) for place in range(len(rows))]
    return [
        GraphStep(label, rows[label], *kinds[label], place + 1, len(rows), left[place])
        for place, label in enumerate(rows)
    ]
