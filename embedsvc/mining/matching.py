"""One-to-one choices among candidate pairs: greedy, and the one with the highest total."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW = 2_000  # pairs left over at which a plain loop is faster than another pass over arrays
_WORTH = 0.05  # the share of pairs that a pass has to take for another one to follow


def greedy_matching(sources: Rows, targets: Rows) -> Mask:
    """Return the mask ``(pairs,)`` of the pairs, taken in the order given, whose texts no earlier one has.

    In every pass the pairs that come first for both of their texts are taken and the texts' other pairs
    dropped; this chooses what the loop over all pairs would choose.
    """
    kept = np.zeros(len(sources), bool)
    left = np.arange(len(sources))
    share = 1.0
    while len(left) > _FEW and share > _WORTH:
        taken = left[_first_of_both(sources[left], targets[left])]
        share = len(taken) / len(left)
        kept[taken] = True
        left = _still_free(left, taken, sources, targets)
    kept[_greedy_loop(left, sources, targets)] = True
    return kept


def _still_free(left: Rows, taken: Rows, sources: Rows, targets: Rows) -> Rows:
    """Return those of the pairs left that share no text with the pairs just taken."""
    used = _used(sources[left], sources[taken]) | _used(targets[left], targets[taken])
    return left[~used]


def _greedy_loop(left: Rows, sources: Rows, targets: Rows) -> list[int]:
    used_sources: set[int] = set()
    used_targets: set[int] = set()
    kept = []
    for pair, source, target in zip(
        left.tolist(), sources[left].tolist(), targets[left].tolist(), strict=True
    ):
        if source not in used_sources and target not in used_targets:
            used_sources.add(source)
            used_targets.add(target)
            kept.append(pair)
    return kept


def _first_of_both(sources: Rows, targets: Rows) -> Mask:
    """Return the mask of the pairs that are the first of their source and the first of their target."""
    positions = np.arange(len(sources))
    both: Mask = (_first(sources)[sources] == positions) & (_first(targets)[targets] == positions)
    return both


def _first(rows: Rows) -> Rows:
    """Return for every row number where it stands first (undefined for numbers that do not occur)."""
    first = np.empty(rows.max(initial=-1) + 1, np.int64)
    first[rows[::-1]] = np.arange(len(rows))[::-1]  # of several values for one place the last stays
    return first


def _used(rows: Rows, used: Rows) -> Mask:
    marked = np.zeros(max(rows.max(initial=-1), used.max(initial=-1)) + 1, bool)
    marked[used] = True
    return marked[rows]


def optimal_matching(sources: Rows, targets: Rows, gains: NDArray[Any]) -> Mask:
    """Return the mask ``(pairs,)`` of the one-to-one choice with the highest sum of ``gains``.

    The pairs come best first; one with a negative gain is never chosen. A pair that is worth as much as
    the best others of its two texts together belongs to a best choice and is taken at once; what remains
    falls into small connected parts, each solved exactly (Volgenant's LAPMOD, 1996, in the package `lap`).
    """
    gains = gains.astype(np.float64)
    kept = np.zeros(len(sources), bool)
    left = np.flatnonzero(gains >= 0)
    while len(left):
        taken = left[_dominant(sources[left], targets[left], gains[left])]
        if not len(taken):
            break
        kept[taken] = True
        left = _still_free(left, taken, sources, targets)
    for part in _connected_parts(sources[left], targets[left]):
        pairs = left[part]
        kept[pairs[_solved(sources[pairs], targets[pairs], gains[pairs])]] = True
    return kept


def _dominant(sources: Rows, targets: Rows, gains: NDArray[np.float64]) -> Mask:
    """Return the mask of the pairs, best first, that weigh as much as both texts' next best together."""
    first = _first_of_both(sources, targets)
    rivals = _second(sources, gains)[sources] + _second(targets, gains)[targets]
    return first & (gains >= rivals)


def _second(rows: Rows, gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for every row number the gain of its second pair, 0 without one; pairs come best first."""
    second = np.zeros(rows.max(initial=-1) + 1)
    later = np.flatnonzero(_first(rows)[rows] != np.arange(len(rows)))[::-1]
    second[rows[later]] = gains[later]
    return second


def _connected_parts(sources: Rows, targets: Rows) -> Iterator[NDArray[np.intp]]:
    """Yield the positions, ascending, of the pairs of each connected part of the graph of pairs."""
    labels = np.arange(len(sources))
    while True:
        before = labels
        for rows in (sources, targets):
            lowest = np.full(rows.max(initial=-1) + 1, len(labels))
            np.minimum.at(lowest, rows, labels)
            labels = lowest[rows]
        labels = labels[labels]  # halves the length of chains
        if np.array_equal(labels, before):
            break
    order = np.argsort(labels, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else ()


def _solved(sources: Rows, targets: Rows, gains: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the positions of the pairs of the best choice in one connected part.

    An assignment needs a partner for everyone. So every source i gets an idle target of its own, every target
    j an idle source, at cost 0; where i and j are paired, the two idle ones take each other.
    """
    import lap

    _, source = np.unique(sources, return_inverse=True)
    _, target = np.unique(targets, return_inverse=True)
    n, m = int(source.max()) + 1, int(target.max()) + 1
    lines = np.concatenate([source, np.arange(n), n + np.arange(m), n + target])
    columns = np.concatenate([target, m + np.arange(n), np.arange(m), m + source])
    costs = np.concatenate([gains.max() - gains, np.full(n + m + len(gains), gains.max())])
    order = np.lexsort((columns, lines))
    starts = np.concatenate([[0], np.cumsum(np.bincount(lines, minlength=n + m))])
    _, chosen, _ = lap.lapmod(n + m, costs[order], starts.astype(np.int32), columns[order].astype(np.int32))
    return np.flatnonzero(chosen[source] == target)
