"""Search parameters that reach a wanted recall, measured on queries the index has not seen.

Some rows are held out of the build and asked as queries; an exact search says what they should have
found. They are added at the end, so that no row is missing from the finished index. Held-out rows are
honest queries: an index finds what it was built on more easily.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.exact import nearest
from indexing.index import VectorIndex
from indexing.kinds import Flat, Kind
from indexing.neighbours import Neighbours
from indexing.recall import hits_per_query
from indexing.vectors import check_vectors

LARGEST_SHARE = 0.1
"""The largest share of a group that is held out."""

LEAST_QUERIES = 20
"""Queries from which on the recall of a group is judged on its own; fewer say too little."""


_DOUBT = 2  # standard errors
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Calibration:
    """What was measured, as values that JSON takes.

    ``recall`` is the mean over the held-out queries of the share of the true ``k`` that are among the
    first ``candidates`` found; None if no query could be held out. ``recall_by_group`` gives it for
    the queries of each group, ``queries_by_group`` their numbers. ``reached`` says whether every group
    with at least `LEAST_QUERIES` queries, and all together, reach ``target`` by more than two standard
    errors; if not, ``parameters`` are those that came closest.
    """

    target: float
    k: int
    candidates: int
    reached: bool
    recall: float | None
    recall_by_group: dict[str, float]
    queries: int
    queries_by_group: dict[str, int]
    parameters: dict[str, Any]


def least_recall(calibrations: Iterable[Calibration]) -> float | None:
    """Return the least recall measured, of all queries or of a group; None where nothing was."""
    measured = [
        recall
        for calibration in calibrations
        for recall in (calibration.recall, *calibration.recall_by_group.values())
        if recall is not None
    ]
    return min(measured, default=None)


@dataclass(frozen=True, eq=False)
class Askers:
    """Queries ``(q, dim)``, unit rows, that are no rows of the index, and the groups ``(q,)`` they are of."""

    vectors: NDArray[np.float32]
    groups: NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Trial:
    """Held-out queries, the groups they are of, and what they should find."""

    queries: NDArray[np.float32]
    groups: NDArray[Any]
    vectors: NDArray[np.float32]
    true: Neighbours
    candidates: int

    def recalls(self, index: VectorIndex) -> NDArray[np.float64]:
        """Recall of each query ``(q,)``; a row as near as the last true neighbour is as good as it.

        Else a sentence that is there a hundred times would have ten true copies and ninety wrong ones.
        """
        found = index.search(self.queries, self.candidates, trusted=True).rows
        k = self.true.rows.shape[1]
        hits = hits_per_query(found, self.true.rows)
        for query in np.flatnonzero(hits < k):
            rows = found[query][found[query] >= 0]
            near = self.vectors[rows] @ self.queries[query] >= self.true.scores[query, -1] - _ROUNDING
            hits[query] = max(hits[query], min(k, int(np.count_nonzero(near))))
        shares: NDArray[np.float64] = hits / k
        return shares

    def lowest(self, recalls: NDArray[np.float64]) -> float:
        """The lowest recall less two standard errors, of all and of each group with enough queries."""
        parts = [recalls[self.groups == group] for group in np.unique(self.groups)]
        return min(
            _lower_bound(part) for part in [recalls, *parts] if len(part) >= LEAST_QUERIES or part is recalls
        )


def build_calibrated(
    vectors: NDArray[Any],
    kind: Kind,
    *,
    groups: NDArray[Any] | Sequence[Any] | None = None,
    recall: float = 0.95,
    k: int = 10,
    candidates: int | None = None,
    queries: int = 1000,
    seed: int = 0,
    askers: Askers | None = None,
) -> tuple[VectorIndex, Calibration]:
    """Index ``vectors`` ``(n, dim)`` with the cheapest search that finds ``recall`` of the true ``k``.

    The recall holds for every one of ``groups`` ``(n,)``, labels of the rows (languages, say), that has
    at least 200 rows. About ``queries`` rows are held out to measure it, half of them shared out evenly
    among the groups, half by size, and at most a tenth of any group. A true neighbour counts as found
    among the first ``candidates`` (at least ``k``, which is the default) if the caller rescores these.
    ``askers`` are asked too: a graph finds less for queries that lie elsewhere than its own rows.

    Raises:
        VectorError: ``vectors`` break the vector convention.
        IndexingError: ``recall``, ``k``, ``candidates`` or ``queries`` is out of range, or there is not
            one group label per row.
    """
    vectors = check_vectors(vectors)
    candidates = k if candidates is None else candidates
    _check(recall, k, candidates, queries)
    labels = _labels(groups, len(vectors))
    held = held_out(labels, queries, np.random.default_rng(seed))
    if isinstance(kind, Flat) or not len(held):
        exact = 1.0 if isinstance(kind, Flat) else None
        return VectorIndex.build(vectors, kind), _unmeasured(kind, exact, recall, k, candidates)
    kept = np.setdiff1d(np.arange(len(vectors)), held)
    asked, groups_asked = vectors[held], labels[held]
    if askers is not None:
        asked = np.concatenate([asked, askers.vectors])
        groups_asked = np.concatenate([groups_asked, askers.groups])
    known = vectors[kept]
    trial = _Trial(asked, groups_asked, known, nearest(asked, known, k), candidates)
    index, recalls, reached = _cheapest(VectorIndex.build(known, kind), trial, recall)
    index.faiss_index.add(vectors[held])
    order = np.concatenate([kept, held]).astype(np.int32)
    calibration = _measured(trial, recalls, index.kind, (recall, k, reached))
    return VectorIndex(index.kind, index.faiss_index, order), calibration


def held_out(labels: NDArray[Any], queries: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return about ``queries`` rows, ascending, drawn from every group of ``labels`` ``(n,)``.

    Half are shared out evenly, half by the size of the group; a group gives at least `LEAST_QUERIES` if
    that is not more than `LARGEST_SHARE` of it, and never more than this share.
    """
    groups, members = np.unique(labels, return_inverse=True)
    drawn = [np.empty(0, np.int64)]
    for group in range(len(groups)):
        rows = np.flatnonzero(members == group)
        fair = queries / 2 / len(groups) + queries / 2 * len(rows) / len(labels)
        count = min(int(LARGEST_SHARE * len(rows)), max(LEAST_QUERIES, math.ceil(fair)))
        drawn.append(random.choice(rows, count, replace=False))
    return np.sort(np.concatenate(drawn))


def _cheapest(
    index: VectorIndex, trial: _Trial, target: float
) -> tuple[VectorIndex, NDArray[np.float64], bool]:
    """Return the index with the first parameters that reach ``target``, else the best; and its recalls."""
    best: tuple[float, VectorIndex, NDArray[np.float64]] | None = None
    for kind in index.kind.search_ladder(index.count, trial.candidates):
        tried = VectorIndex(kind, index.faiss_index)
        recalls = trial.recalls(tried)
        lowest = trial.lowest(recalls)
        if lowest >= target:
            return tried, recalls, True
        if best is None or lowest > best[0]:
            best = lowest, tried, recalls
    assert best is not None, f"{index.kind.name} has an empty ladder"
    return best[1], best[2], False


def _lower_bound(recalls: NDArray[np.float64]) -> float:
    """The mean less two standard errors: other queries than these should reach the target as well."""
    return float(recalls.mean() - _DOUBT * recalls.std() / math.sqrt(len(recalls)))


def _measured(
    trial: _Trial, recalls: NDArray[np.float64], kind: Kind, request: tuple[float, int, bool]
) -> Calibration:
    target, k, reached = request
    parts = {str(group): recalls[trial.groups == group] for group in np.unique(trial.groups)}
    return Calibration(
        target=target,
        k=k,
        candidates=trial.candidates,
        reached=reached,
        recall=float(recalls.mean()),
        recall_by_group={group: float(part.mean()) for group, part in parts.items()},
        queries=len(recalls),
        queries_by_group={group: len(part) for group, part in parts.items()},
        parameters=asdict(kind),
    )


def _unmeasured(kind: Kind, recall: float | None, target: float, k: int, candidates: int) -> Calibration:
    return Calibration(
        target=target,
        k=k,
        candidates=candidates,
        reached=recall is not None,
        recall=recall,
        recall_by_group={},
        queries=0,
        queries_by_group={},
        parameters=asdict(kind),
    )


def _check(recall: float, k: int, candidates: int, queries: int) -> None:
    if not 0 < recall <= 1:
        raise IndexingError(f"recall is {recall}; expected more than 0, at most 1")
    for name, value in (("k", k), ("queries", queries)):
        if value < 1:
            raise IndexingError(f"{name} is {value}; expected at least 1")
    if candidates < k:
        raise IndexingError(f"candidates is {candidates}; expected at least k, {k}")


def _labels(groups: NDArray[Any] | Sequence[Any] | None, count: int) -> NDArray[Any]:
    labels = np.zeros(count, np.int64) if groups is None else np.asarray(groups)
    if labels.shape != (count,):
        raise IndexingError(f"groups have shape {labels.shape}; expected one label per row, ({count},)")
    return labels
