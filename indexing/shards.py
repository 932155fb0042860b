"""Vectors of many groups (languages): exact over all, a pooled graph, and a graph for each large group.

A graph over a mixed pool that is searched for one group only loses that group's neighbours, the more
the rarer the group is. So rows are stored group by group: a small group is scanned exactly, a large
one has a graph of its own, and only a search of all groups uses the pooled graph. What a graph finds
is scored again with the exact vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.calibrate import Askers, Calibration, build_calibrated, held_out, least_recall
from indexing.errors import IndexingError
from indexing.index import VectorIndex
from indexing.kinds import Flat, Hnsw, Rows
from indexing.shard_options import POOL, GraphStep, ShardOptions, graph_steps
from indexing.vectors import check_vectors

Strategy = Literal["exact", "scan", "graph", "fan-out"]
_SCAN_RANGES = 4  # more ranges than this are scanned as one list of rows
_QUERIES = 4_000  # held out to calibrate a graph; with fewer, chance decides what a rare group seems to need
_ASKERS = 500  # rows of other groups that the graph of a group is calibrated with
_EXACT_ROWS = 1_000  # up to here whole vectors are read, above 8-bit codes, where there are any
_SCANNED_ROWS = 1_000_000  # left by a filter; reading their codes takes some 40 ms
_VALUES_AT_ONCE = 1 << 24  # of candidates, copied to be scored: 64 MiB
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
    """The rows that a search may return, as a mask (n,); what searches derive from it is kept.

    ``scattered`` says that the others are few and anywhere, as deleted rows are. What a filter lets through
    may lie far from a query, where a graph does not get to.
    """

    def __init__(self, mask: NDArray[np.bool_], *, scattered: bool = False) -> None:
        self.mask = mask
        self.scattered = scattered
        self._before = np.concatenate([[0], np.cumsum(mask)])
        self._of_graph: dict[str, Rows] = {}

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The allowed rows, ascending."""
        return np.flatnonzero(self.mask)

    def within(self, group: Group) -> NDArray[np.int64]:
        """The allowed rows of a group, ascending."""
        return self.rows[self._before[group.start] : self._before[group.stop]]

    def selected(self, graph: VectorIndex, group: Group) -> Rows:
        """The allowed rows of a group, prepared for searches of its graph."""
        found = self._of_graph.get(group.label)
        if found is None:
            found = self._of_graph[group.label] = graph.select(self.mask[group.start : group.stop])
        return found

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
        graphs: dict[str, VectorIndex] = {}
        calibrations: dict[str, Calibration] = {}
        report = progress or (lambda _: None)
        for step in graph_steps({group.label: group.count for group in groups}, vectors.shape[1], options):
            report(step)
            graphs[step.label], calibrations[step.label] = _graph(step, vectors, groups, options)
            report(replace(step, calibration=calibrations[step.label]))
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
        return least_recall(self.calibrations.values())

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
        groups: Collection[str] | None = None,
        allowed: Allowed | None = None,
    ) -> Found:
        """Return the ``k`` best rows for unit ``queries`` (q, dim), of these groups, only allowed ones.

        A label that no row has finds nothing.
        """
        if groups is None:
            return self._of_all(queries, k, allowed)
        wanted = [group for group in self.groups.values() if group.label in groups]
        if len(wanted) == len(self.groups):
            return self._of_all(queries, k, allowed)
        return self._of_groups(queries, k, wanted, allowed)

    def _of_all(self, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> Found:
        count = self.count if allowed is None else allowed.count()
        everything = Group(POOL, 0, self.count)
        way = self._way(self.pool, everything, k, allowed)
        if self.pool is None or way == "exact":
            rows = None if allowed is None or count == self.count else allowed.rows
            return self._scan(queries, k, rows, count)
        scores, found = self._by_graph(self.pool, queries, k, everything, allowed)
        return Found(scores, found, Plan(way, count, (POOL,)))

    def _of_groups(
        self, queries: NDArray[np.float32], k: int, wanted: list[Group], allowed: Allowed | None
    ) -> Found:
        parts, asked, scanned = [], [], []
        way: Strategy = "exact"
        for group in wanted:
            graph = self.graphs.get(group.label)
            own = self._way(graph, group, k, allowed)
            if graph is None or own == "exact":
                scanned.append(group)
                continue
            parts.append(self._by_graph(graph, queries, k, group, allowed))
            asked.append(group.label)
            way = own
        if scanned:
            parts += self._scan_groups(queries, k, scanned, allowed)
        total = sum(group.count if allowed is None else allowed.count(group) for group in wanted)
        strategy = "fan-out" if asked and len(parts) > 1 else way
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
        found = self.exact.search(queries, k, rows=None if rows is None else Rows(rows), trusted=True)
        return Found(found.scores, found.rows, Plan("exact", count))

    def _by_graph(
        self,
        graph: VectorIndex,
        queries: NDArray[np.float32],
        k: int,
        group: Group,
        allowed: Allowed | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search the graph of a group, or scan its codes; score the candidates exactly."""
        rows = None if allowed is None else allowed.selected(graph, group)
        count = graph.count if rows is None else len(rows)
        scan = self._way(graph, group, k, allowed) == "scan"
        found = graph.candidates(queries, min(_SEPARATE * k, count), rows=rows, scan=scan)
        if group.start:
            found = np.where(found < 0, -1, found + group.start)
        return rescored(self.vectors, queries, found, min(k, count))

    @staticmethod
    def _way(graph: VectorIndex | None, group: Group, k: int, allowed: Allowed | None) -> Strategy:
        """Return how a group that may have a graph is searched.

        A filter that follows the content (a source, a topic) leaves rows far from some queries: a graph,
        however wide, finds few of them (measured: 0.85 of the ten nearest where a filter left 30 %). Reading
        the codes of the rows that are left finds them all, at some 40 ns each.
        """
        if graph is None:
            return "exact"
        count = group.count if allowed is None else allowed.count(group)
        kind = graph.kind
        if not isinstance(kind, Hnsw):
            return "graph"
        # With ef widened by count / allowed the graph reads about m · ef · count / allowed vectors; the scan
        # reads `allowed`. FAISS widens ef to the candidates that are wanted.
        read_by_graph = kind.m * max(kind.ef_search, _SEPARATE * k) * group.count / max(count, 1)
        if count <= min(read_by_graph, _EXACT_ROWS):
            return "exact"
        is_filter = allowed is not None and not allowed.scattered
        if count <= read_by_graph or (is_filter and count <= _SCANNED_ROWS):
            return "scan"
        return "graph"


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
    scores = np.empty(rows.shape, np.float32)
    step = max(1, _VALUES_AT_ONCE // max(1, rows.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores[part] = np.einsum("qcd,qd->qc", vectors[rows[part]], queries[part])
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
    step: GraphStep, vectors: NDArray[np.float32], groups: Sequence[Group], options: ShardOptions
) -> tuple[VectorIndex, Calibration]:
    members = [group for group in groups if step.label in (POOL, group.label)]
    return build_calibrated(
        vectors[members[0].start : members[-1].stop],
        step.kind,
        groups=np.concatenate([np.full(group.count, group.label) for group in members]),
        recall=options.recall,
        k=options.k,
        candidates=_SEPARATE * options.k,
        queries=_QUERIES,
        askers=None if step.label == POOL else _askers(vectors, groups, members[0]),
    )


def _askers(vectors: NDArray[np.float32], groups: Sequence[Group], own: Group) -> Askers:
    """Rows of the other groups, as queries: a text in one language is asked for in any."""
    others = [group for group in groups if group is not own]
    rows = np.concatenate([np.arange(group.start, group.stop) for group in others])
    labels = np.concatenate([np.full(group.count, group.label) for group in others])
    some = held_out(labels, _ASKERS, np.random.default_rng(0))
    return Askers(vectors[rows[some]], labels[some])
