"""Known pairs planted among the sentences to be mined, to learn how true and false pairs score there.

Planted sentences are neighbours and rivals like any other while a threshold is sought; the pairs that are
kept come from the corpus alone, so no planted sentence is written or takes a partner away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.duplicates import duplicate_key
from indexing import BothWays, Neighbours

Rows = NDArray[np.int64]
RowOf = Callable[[str], int | None]
"""The row of a text that a side has, else None."""


@dataclass(frozen=True, eq=False)
class Plants:
    """Texts to add to each side, and where the known pairs then stand.

    ``pairs`` int64 ``(pairs, 2)``: source and target row. A row at or after the size of its side is that of
    a planted text (size + position among the texts); a lower one is that of a sentence of the corpus itself.
    """

    source_texts: list[str]
    target_texts: list[str]
    pairs: Rows
    sizes: tuple[int, int]


@dataclass(frozen=True, eq=False)
class PlantedNeighbours:
    """Neighbours of the corpus and of the plants; each counts rows within its own two sides."""

    corpus: BothWays
    planted_sources: BothWays
    """The planted sources with the targets of the corpus."""
    planted_targets: BothWays
    """The sources of the corpus with the planted targets."""
    planted: BothWays
    """The planted sources with the planted targets."""


def plan_plants(
    pairs: Sequence[tuple[str, str]], row_of: tuple[RowOf, RowOf], sizes: tuple[int, int]
) -> Plants:
    """Return what to add to the source side (of ``sizes[0]`` sentences) and the target side.

    ``row_of`` finds a text in the source side and in the target side. Texts that are there stay in place, and
    a pair with a text of an earlier pair is left out: its partner would be in doubt.
    """
    texts: tuple[list[str], list[str]] = ([], [])
    seen: tuple[set[str], set[str]] = (set(), set())
    rows = []
    for pair in pairs:
        keys = [duplicate_key(text) for text in pair]
        if not all(keys) or any(key in known for key, known in zip(keys, seen, strict=True)):
            continue
        row = []
        for side, text in enumerate(pair):
            seen[side].add(keys[side])
            found = row_of[side](text)
            if found is None:
                texts[side].append(text)
                found = sizes[side] + len(texts[side]) - 1
            row.append(found)
        rows.append(row)
    return Plants(texts[0], texts[1], np.array(rows, np.int64).reshape(-1, 2), sizes)


def neighbours_with_plants(parts: PlantedNeighbours, *, sources: bool, targets: bool) -> BothWays:
    """Return the neighbours of the corpus with the planted sources, targets or both added after it."""
    x_to_y, y_to_x = parts.corpus.x_to_y, parts.corpus.y_to_x
    n, m = len(x_to_y.rows), len(y_to_x.rows)
    if targets:
        x_to_y = _best_of(x_to_y, parts.planted_targets.x_to_y, m)
    if sources:
        y_to_x = _best_of(y_to_x, parts.planted_sources.y_to_x, n)
    planted_x, planted_y = parts.planted_sources.x_to_y, parts.planted_targets.y_to_x
    if sources and targets:
        planted_x = _best_of(planted_x, parts.planted.x_to_y, m)
        planted_y = _best_of(planted_y, parts.planted.y_to_x, n)
    return BothWays(
        _stacked(x_to_y, planted_x) if sources else x_to_y,
        _stacked(y_to_x, planted_y) if targets else y_to_x,
    )


def _best_of(lists: Neighbours, more: Neighbours, offset: int) -> Neighbours:
    """Return the best k of two lists per row; rows of the second count from ``offset``."""
    k = max(lists.rows.shape[1], more.rows.shape[1])
    added = np.where(more.rows >= 0, more.rows + offset, -1)
    scores = np.concatenate([lists.scores, more.scores], axis=1)
    rows = np.concatenate([lists.rows, added], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1))


def _stacked(first: Neighbours, second: Neighbours) -> Neighbours:
    """Return the lists of both, one after the other; shorter ones get slots without a neighbour."""
    k = max(first.rows.shape[1], second.rows.shape[1])
    first, second = _widened(first, k), _widened(second, k)
    return Neighbours(
        np.concatenate([first.scores, second.scores]), np.concatenate([first.rows, second.rows])
    )


def _widened(lists: Neighbours, k: int) -> Neighbours:
    missing = ((0, 0), (0, k - lists.rows.shape[1]))
    return Neighbours(
        np.pad(lists.scores, missing, constant_values=-np.inf),
        np.pad(lists.rows, missing, constant_values=-1),
    )


def nearest_of(both: BothWays, k: int) -> BothWays:
    """Return the first ``k`` neighbours of every row."""
    x_to_y, y_to_x = (
        Neighbours(lists.scores[:, :k], lists.rows[:, :k]) for lists in (both.x_to_y, both.y_to_x)
    )
    return BothWays(x_to_y, y_to_x)


def without_rows(both: BothWays, source_rows: Rows, target_rows: Rows) -> BothWays:
    """Return the neighbours as if these rows of the two sides were not there."""
    gone_x = _mask(source_rows, len(both.x_to_y.rows))
    gone_y = _mask(target_rows, len(both.y_to_x.rows))
    return BothWays(_emptied(both.x_to_y, gone_x, gone_y), _emptied(both.y_to_x, gone_y, gone_x))


def _mask(rows: Rows, size: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[rows] = True
    return mask


def _emptied(lists: Neighbours, own: NDArray[np.bool_], other: NDArray[np.bool_]) -> Neighbours:
    gone = other[np.maximum(lists.rows, 0)] | own[:, None] | (lists.rows < 0)
    scores, rows = np.where(gone, np.float32(-np.inf), lists.scores), np.where(gone, -1, lists.rows)
    best = np.argsort(-scores, axis=1, kind="stable")
    return Neighbours(np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1))
