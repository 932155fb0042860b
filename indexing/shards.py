"""Vectors of many groups (languages): exact over all, a pooled graph, and a graph for each large group.

A graph over a mixed pool that is searched for one group only loses that group's neighbours, the more
the rarer the group is. So rows are stored group by group: a small group is scanned exactly, a large
one has a graph of its own, and only a search of all groups uses the pooled graph. What a graph finds
is scored again with the exact vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.calibrate import Calibration, build_calibrated
from indexing.errors import IndexingError
from indexing.index import VectorIndex
from indexing.kinds import Flat, Hnsw, Kind
from indexing.shard_options import POOL, GraphStep, ShardOptions, graph_steps
from indexing.vectors import check_vectors

Strategy = Literal["exact", "graph", "fan-out"]
_SCAN_RANGES = 4  # more ranges than this are scanned as one list of rows
_SEPARATE = 2  # candidates per wanted neighbour, that the exact score chooses from


@dataclass(frozen=True)
class Group:
    """The rows ``start`` to ``stop`` (exclusive) of one label."""

    label: str
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """What a search did: its strategy, the rows it might return, and the graphs it asked (label or "*")."""

    strategy: Strategy
    rows: int
    graphs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """Scores and row numbers (q, k), best first; a slot without a neighbour has row -1, score -inf."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    plan: Plan


class Allowed:
    """The rows that a search may return, as a mask (n,); what searches derive from it is kept."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self._before = np.concatenate([[0], np.cumsum(mask)])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The allowed rows, ascending."""
        return np.flatnonzero(self.mask)

    def within(self, group: Group) -> NDArray[np.int64]:
        """The allowed rows of a group, ascending."""
        return self.rows[self._before[group.start] : self._before[group.stop]]

    def count(self, group: Group | None = None) -> int:
        """The number of allowed rows, of a group or in all."""
        if group is None:
            return int(self._before[-1])
        return int(self._before[group.stop] - self._before[group.start])


class ShardedIndex:
    """Rows 0..n-1 sorted by group, searched over all groups, some, or one. Safe to use from many threads."""

    def __init__(
        self,
        exact: VectorIndex,
        groups: Sequence[Group],
        graphs: Mapping[str, VectorIndex],
        pool: VectorIndex | None,
        calibrations: Mapping[str, Calibration] | None = None,
    ) -> None:
        """``exact`` holds all rows; ``graphs`` those of their group; ``pool`` all. See `build`."""
        self.exact = exact
        self.groups = {group.label: group for group in groups}
        self.graphs = dict(graphs)
        self.pool = pool
        self.calibrations = dict(calibrations or {})

    @classmethod
    def build(
        cls,
        vectors: NDArray[Any],
        labels: Sequence[str] | NDArray[Any],
        options: ShardOptions | None = None,
        *,
        progress: Callable[[GraphStep], None] | None = None,
    ) -> ShardedIndex:
        """Index ``vectors`` (n, dim), unit rows, whose ``labels`` (n,) stand group by group.

        ``progress`` is called before each graph and after it. Raises VectorError for wrong vectors,
        IndexingError for labels that are not sorted into groups and for graphs too large for the memory.
        """
        options = options or ShardOptions()
        vectors = check_vectors(vectors)
        groups = group_ranges(labels)
        if sum(group.count for group in groups) != len(vectors):
            raise IndexingError(f"{len(labels)} labels are given for {len(vectors)} vectors")
        rows = {group.label: slice(group.start, group.stop) for group in groups}
        graphs: dict[str, VectorIndex] = {}
        calibrations: dict[str, Calibration] = {}
        report = progress or (lambda _: None)
        steps = graph_steps({group.label: group.count for group in groups}, vectors.shape[1], options)
        for step in steps:
            report(step)
            pooled = step.label == POOL
            built = _graph(
                vectors if pooled else vectors[rows[step.label]],
                np.asarray(labels) if pooled else None,
                step.kind,
                options,
            )
            graphs[step.label], calibrations[step.label] = built
            report(replace(step, calibration=built[1]))
        pool = graphs.pop(POOL, None)
        return cls(VectorIndex.build(vectors, Flat()), groups, graphs, pool, calibrations)

    @property
    def count(self) -> int:
        """The number of rows."""
        return self.exact.count

    @property
    def dimension(self) -> int:
        """The width of a vector."""
        return self.exact.dimension

    @property
    def recall(self) -> float | None:
        """The least recall measured for any group; None while every search is exact."""
        measured = [
            recall
            for calibration in self.calibrations.values()
            for recall in (calibration.recall, *calibration.recall_by_group.values())
            if recall is not None
        ]
        return min(measured, default=None)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors (n, dim), not copied; they live as long as the index does."""
        index = self.exact.faiss_index
        view: NDArray[np.float32] = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        return view.reshape(index.ntotal, index.d)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        groups: Iterable[str] | None = None,
        allowed: Allowed | None = None,
    ) -> Found:
        """Return the ``k`` best rows for unit ``queries`` (q, dim), of these groups, only allowed ones.

        A label that no row has finds nothing.
        """
        if groups is None:
            return self._of_all(queries, k, allowed)
        wanted = [self.groups[label] for label in sorted(set(groups)) if label in self.groups]
        if len(wanted) == len(self.groups):
            return self._of_all(queries, k, allowed)
        return self._of_groups(queries, k, wanted, allowed)

    def _of_all(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Found:
        count = self.count if allowed is None else allowed.count()
        if self.pool is None or count <= self._largest_scan(self.pool, self.count):
            rows = None if allowed is None or count == self.count else allowed.rows
            return self._scan(queries, k, rows, count)
        scores, found = self._by_graph(self.pool, queries, k, 0, None if allowed is None else allowed.rows)
        return Found(scores, found, Plan("graph", count, ("*",)))

    def _of_groups(
        self, queries: NDArray[np.float32], k: int, wanted: list[Group], allowed: Allowed | None
    ) -> Found:
        parts, asked, scanned = [], [], []
        for group in wanted:
            count = group.count if allowed is None else allowed.count(group)
            graph = self.graphs.get(group.label)
            if graph is None or count <= self._largest_scan(graph, group.count):
                scanned.append(group)
                continue
            own = None if allowed is None else allowed.within(group) - group.start
            parts.append(self._by_graph(graph, queries, k, group.start, own))
            asked.append(group.label)
        if scanned:
            parts += self._scan_groups(queries, k, scanned, allowed)
        total = sum(group.count if allowed is None else allowed.count(group) for group in wanted)
        strategy: Strategy = "exact" if not asked else "graph" if len(parts) == 1 else "fan-out"
        scores, rows = merged(parts, len(queries), k)
        return Found(scores, rows, Plan(strategy, total, tuple(asked)))

    def _scan_groups(
        self, queries: NDArray[np.float32], k: int, groups: list[Group], allowed: Allowed | None
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        if allowed is None and len(groups) <= _SCAN_RANGES:
            return [self._scan_range(queries, k, group) for group in groups]
        rows = [np.arange(g.start, g.stop) if allowed is None else allowed.within(g) for g in groups]
        found = self._scan(queries, k, np.concatenate(rows), 0)
        return [(found.scores, found.rows)]

    def _scan_range(
        self, queries: NDArray[np.float32], k: int, group: Group
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        selected = faiss.SearchParameters(sel=faiss.IDSelectorRange(group.start, group.stop))
        scores, rows = self.exact.faiss_index.search(queries, min(k, group.count), params=selected)
        return scores, rows

    def _scan(
        self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None, count: int
    ) -> Found:
        k = max(1, min(k, self.count if rows is None else len(rows)))
        if rows is not None and not len(rows):
            nothing = np.full((len(queries), 0), -1, np.int64)
            return Found(nothing.astype(np.float32), nothing, Plan("exact", 0))
        found = self.exact.search(queries, k, rows=rows, trusted=True)
        return Found(found.scores, found.rows, Plan("exact", count))

    def _by_graph(
        self,
        graph: VectorIndex,
        queries: NDArray[np.float32],
        k: int,
        first: int,
        rows: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search a graph whose row 0 is row ``first`` of this index; score its candidates exactly."""
        count = graph.count if rows is None else len(rows)
        found = graph.candidates(queries, min(_SEPARATE * k, count), rows=rows)
        if first:
            found = np.where(found < 0, -1, found + first)
        return rescored(self.vectors, queries, found, min(k, count))

    @staticmethod
    def _largest_scan(graph: VectorIndex, count: int) -> float:
        """Allowed rows up to which a scan costs less than the graph does with a filter that leaves them.

        With ef widened by ``count / allowed`` the graph reads about ``m · ef · count / allowed`` vectors;
        the scan reads ``allowed``.
        """
        kind = graph.kind
        if not isinstance(kind, Hnsw):
            return 0.0
        return math.sqrt(kind.m * kind.ef_search * count)


def group_ranges(labels: Sequence[str] | NDArray[Any]) -> list[Group]:
    """Return the runs of equal labels (n,); raise IndexingError when a label comes in two runs."""
    values = np.asarray(labels)
    if values.dtype.kind == "S":
        values = values.astype("U")
    if not len(values):
        return []
    starts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()]
    stops = [*starts[1:], len(values)]
    groups = [Group(str(values[start]), start, stop) for start, stop in zip(starts, stops, strict=True)]
    seen: set[str] = set()
    for group in groups:
        if group.label in seen:
            raise IndexingError(f"labels[{group.start}] is {group.label!r} again; sort the rows by label")
        seen.add(group.label)
    return groups


def rescored(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the ``k`` best of candidate ``rows`` (q, c) by their exact scores; row -1 is no candidate."""
    if len(queries) == 1:
        one = rows[0]
        scores = vectors[one] @ queries[0]
        if one.min(initial=0) < 0:
            scores[one < 0] = -np.inf
        order = np.lexsort((one, -scores))[:k]
        return scores[order][None], one[order][None]
    scores = np.einsum("qcd,qd->qc", vectors[rows], queries)
    return best_of(np.where(rows < 0, np.float32(-np.inf), scores), rows, k)


def best_of(
    scores: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the ``k`` best of scores and rows (q, c), best first, of equals the lower row."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def merged(
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], queries: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the ``k`` best of several results for the same queries."""
    if not parts:
        nothing = np.full((queries, 0), -1, np.int64)
        return nothing.astype(np.float32), nothing
    if len(parts) == 1:
        return parts[0]
    return best_of(np.hstack([part[0] for part in parts]), np.hstack([part[1] for part in parts]), k)


def _graph(
    vectors: NDArray[np.float32], labels: NDArray[Any] | None, kind: Kind, options: ShardOptions
) -> tuple[VectorIndex, Calibration]:
    return build_calibrated(
        vectors,
        kind,
        groups=labels,
        recall=options.recall,
        k=options.k,
        candidates=_SEPARATE * options.k,
    )
