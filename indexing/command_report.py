"""What the command says of an index: while it builds, and when it is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from indexing.array_index import ArrayIndex
from indexing.calibrate import Calibration
from indexing.shard_folder import EXACT, part_bytes
from indexing.shard_options import POOL, GraphStep
from indexing.shards import ShardedIndex

_SECONDS_PER_VALUE = 3.7e-7
"""Of one core, for a value of a vector in a graph of 100,000 (measured); replaced by what is seen here."""


class BuildProgress:
    """Says on the standard error which graph is built, why it is of its kind, and how long it may take."""

    def __init__(self, dimension: int) -> None:
        self._seconds_per_row = _SECONDS_PER_VALUE * dimension
        self._rows = 0
        self._spent = self._started = 0.0

    def __call__(self, step: GraphStep) -> None:
        """Take notice of a graph that begins or is finished."""
        place = f"[{step.number}/{step.of}] {_shown(step.label)}"
        if step.calibration is None:
            this, left = (_seconds(rows * self._seconds_per_row) for rows in (step.rows, step.left))
            say(f"{place}: {step.why}; about {this}, {left} for all that is left")
            self._started = time.monotonic()
            return
        seconds = time.monotonic() - self._started
        self._spent, self._rows = self._spent + seconds, self._rows + step.rows
        self._seconds_per_row = self._spent / self._rows
        say(f"{place}: built in {_seconds(seconds)}, {_measured(step.calibration)}")


def say(line: str) -> None:
    """Print a line for people who watch, at once."""
    print(line, file=sys.stderr, flush=True)


def table(opened: ArrayIndex, folder: Path) -> str:
    """Return the groups of an index, their searches, the recall measured, and the bytes of its parts."""
    index = opened.index
    lines = [["label", "rows", "strategy", "recall", "recall in the pool"]]
    for group in index.groups.values():
        strategy, recall = _alone(index, group.label)
        lines.append([repr(group.label), f"{group.count:,}", strategy, recall, _in_pool(index, group.label)])
    lines.append([_shown(POOL), f"{index.count:,}", *_alone(index, POOL), ""])
    return "\n".join([*_aligned(lines), "", *_aligned(_sizes(folder))])


def graphs(opened: ArrayIndex) -> str:
    """Return the kind of each graph, with its parameters, and why it is of this kind."""
    parts = opened.index.graphs | ({} if opened.index.pool is None else {POOL: opened.index.pool})
    lines = []
    for label, part in parts.items():
        lines.append(f"{_shown(label)}: {part.kind}, {_measured(opened.index.calibrations[label])}")
        lines.append(f"  {opened.extra['why'][label]}")
    return "\n".join(lines)


def shortfalls(index: ShardedIndex) -> list[str]:
    """Return a sentence for each graph that does not reach its recall, or was too small to measure it."""
    return [
        f"{_shown(label)}: recall {calibration.target:g} is not reached for certain; {_measured(calibration)}"
        for label, calibration in index.calibrations.items()
        if not calibration.reached
    ]


def _alone(index: ShardedIndex, label: str) -> tuple[str, str]:
    """How a search of one group, or of all, is done, and its recall."""
    if label == POOL or len(index.groups) == 1:
        return ("exact", _recall(1.0)) if index.pool is None else ("pool", _calibrated(index, POOL))
    return ("graph", _calibrated(index, label)) if label in index.graphs else ("exact", _recall(1.0))


def _in_pool(index: ShardedIndex, label: str) -> str:
    """The recall of queries of a group's language when all groups are searched."""
    pool = index.calibrations.get(POOL)
    return _recall(1.0 if pool is None else pool.recall_by_group.get(label))


def _calibrated(index: ShardedIndex, label: str) -> str:
    calibration = index.calibrations[label]
    return _recall(calibration.recall) + ("" if calibration.reached else " (too low)")


def _sizes(folder: Path) -> list[list[str]]:
    parts = part_bytes(folder)
    graphs = sum(size for name, size in parts.items() if name != EXACT)
    whole = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    lines = [[name, f"{size:,} bytes"] for name, size in parts.items()]
    return [*lines, ["all graphs", f"{graphs:,} bytes"], ["folder", f"{whole:,} bytes"]]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _shown(label: str) -> str:
    return "all rows" if label == POOL else repr(label)


def _measured(calibration: Calibration) -> str:
    if calibration.recall is None:
        return "recall not measured"
    return f"recall {calibration.recall:.3f} of the true {calibration.k} over {calibration.queries} queries"


def _recall(recall: float | None) -> str:
    return "-" if recall is None else f"{recall:.3f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
