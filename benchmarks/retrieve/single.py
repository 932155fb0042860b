"""One query at a time: recall of our searches, and what a search costs beside the peers' at equal recall."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serve.report import in_turns, ratios, spread, table

from retrieve.dataset import CODES, EVERYTHING, RAREST, Dataset, Within
from retrieve.process import Worker

K = 10
GOAL = 0.95
_QUERIES = 120
_EVERY = 4  # of all queries, where every filter is asked about
_FILTERS = [
    *(Within(area=area) for area in ("three", "ten", "thirty")),
    *(Within(draw_below=below) for below in (3, 10, 30)),
    Within(language=RAREST, draw_below=30),
    Within(language=CODES[0], area="ten"),
]


class Judge:
    """The true neighbours, and what share of them an answer has."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._truth: dict[Within, NDArray[np.int64]] = {}

    def recalls(
        self, answer: Mapping[str, Any], queries: Sequence[int], within: Within
    ) -> NDArray[np.float64]:
        """Return the recall@10 of each query; raise RuntimeError for a document that the filter excludes."""
        if within not in self._truth:
            everyone = np.arange(len(self._data.queries))
            self._truth[within] = self._data.nearest(within, everyone, K)
        allowed = set(self._data.rows(within).tolist())
        recalls = []
        for query, found in zip(queries, answer["found"], strict=True):
            rows = {int(name.removeprefix("doc-")) for name in found}
            if not rows <= allowed:
                raise RuntimeError(f"query {query} within {within} found other documents")
            truth = self._truth[within][query]
            recalls.append(len(rows & set(truth.tolist())) / len(truth))
        return np.array(recalls)


def recall_tables(worker: Worker, data: Dataset) -> str:
    """Return our recall per language, without a filter and with one on the language, and with filters."""
    judge, everyone = Judge(data), list(range(len(data.queries)))

    def asked(within: Within, queries: list[int]) -> NDArray[np.float64]:
        answer = worker.ask("search", queries=queries, language=within.language, filter=within.filter)
        return judge.recalls(answer, queries, within)

    def plan(within: Within) -> str:
        return str(worker.ask("plan", language=within.language, filter=within.filter)["strategy"])

    pooled = asked(EVERYTHING, everyone)
    rows = []
    for code in CODES:
        own = np.flatnonzero(data.query_languages == code).tolist()
        within = Within(language=code)
        share = len(data.rows(within)) / len(data.vectors)
        cells = [pooled[own].mean(), asked(within, own).mean(), asked(within, everyone[::_EVERY]).mean()]
        rows.append([f"{code}, {share:.1%}", *(f"{recall:.3f}" for recall in cells), plan(within)])
    means = [f"{pooled.mean():.3f}", "", "", plan(EVERYTHING) + " (no filter)"]
    filters = ["filter: its own", "queries of all, filter: this"]
    head = ["language of the query", "no filter", *filters, "plan"]
    by_language = table(head, [*rows, ["all", *means]])
    return f"{by_language}\n\n{_by_filter(data, asked, plan)}"


def _by_filter(
    data: Dataset, asked: Callable[[Within, list[int]], NDArray[np.float64]], plan: Callable[[Within], str]
) -> str:
    rows = []
    for within in _FILTERS:
        queries = list(range(0, len(data.queries), _EVERY))
        recalls, languages = asked(within, queries), data.query_languages[queries]
        by_language = [recalls[languages == code].mean() for code in CODES]
        left = len(data.rows(within)) / len(data.vectors)
        cells = [f"{left:.1%}", f"{recalls.mean():.3f}", f"{min(by_language):.3f}", plan(within)]
        rows.append([str(within), *cells])
    return table(["filter", "leaves", "recall@10", "least of any query language", "plan"], rows)


@dataclass
class _Figures:
    """What the rounds gave of one peer."""

    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    recall: float = 0.0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.wall_ms)
        return ordered[int(share * len(ordered))]


def cost_table(
    data: Dataset, ours: Worker, bare: Worker, peers: Sequence[Worker], rounds: int, within: Within
) -> str:
    """Return the cost of one search of everybody, tuned to a recall.

    FAISS is tuned to ours and to 0.95, the peers to 0.95; who cannot reach it has the greatest effort.
    """
    judge, few = Judge(data), list(range(0, len(data.queries), max(len(data.queries) // _QUERIES, 1)))
    first = ours.ask("search", queries=few, language=within.language)
    recall = float(judge.recalls(first, few, within).mean())
    searches: dict[str, Callable[[], dict[str, Any]]] = {
        ours.name: partial(ours.ask, "search", queries=few, language=within.language)
    }
    for worker, goal in ((bare, recall), (bare, GOAL), *((peer, GOAL) for peer in peers)):
        effort = _tuned(worker, judge, few, within, goal)
        shown = " ".join(f"{key} {value}" for key, value in effort.items()) or "exact"
        searches[f"{worker.name}, {shown}"] = partial(_with_effort, worker, effort, few, within)
    if within.language:
        searches["FAISS flat over the language alone"] = partial(
            bare.ask, "scan", queries=few, language=within.language
        )
    figures = {name: _Figures() for name in searches}
    for name, search in in_turns(searches, rounds):
        answer = search()
        figures[name].cpu_ms.append(1000 * answer["cpu_s"] / len(few))
        figures[name].wall_ms += [1000 * wall_s for wall_s in answer["wall_s"]]
        figures[name].recall = float(judge.recalls(answer, few, within).mean())
    return _cost_rows(figures, ours.name)


def _tuned(
    worker: Worker, judge: Judge, queries: list[int], within: Within, goal: float
) -> Mapping[str, int]:
    """Return the least effort that reaches the goal, or the greatest, which then misses it."""
    effort: Mapping[str, int] = {}
    for effort in worker.ask("efforts"):
        answer = _with_effort(worker, effort, queries, within)
        if float(judge.recalls(answer, queries, within).mean()) >= goal:
            break
    return effort


def _with_effort(worker: Worker, effort: Mapping[str, int], queries: list[int], within: Within) -> Any:
    worker.ask("use", effort=effort)
    return worker.ask("search", queries=queries, language=within.language)


def _cost_rows(figures: Mapping[str, _Figures], ours: str) -> str:
    rows = []
    for name, peer in figures.items():
        cells = [f"{peer.recall:.3f}", spread(peer.cpu_ms, ".3f")]
        cells += [f"{peer.quantile(share):.3f}" for share in (0.5, 0.99)]
        against = "" if name == ours else ratios(peer.cpu_ms, figures[ours].cpu_ms)
        inverse = (
            ""
            if name == ours
            else f"{statistics.median(figures[ours].cpu_ms) / statistics.median(peer.cpu_ms):.2f}"
        )
        rows.append([name, *cells, against, inverse])
    head = ["", "recall@10", "CPU ms per query", "wall p50 ms", "p99 ms", "this / ours", "ours / this"]
    return table(head, rows)
