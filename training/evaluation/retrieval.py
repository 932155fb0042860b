"""Retrieval: nDCG@10, recall@100 and MRR of exact search, on sets in BEIR's or MIRACL's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from indexing import nearest
from training.evaluation.items import Items, mean_items
from training.evaluation.report import Column, Report, Task, make_report
from training.evaluation.retrieval_files import RetrievalSet, read_retrieval_set, retrieval_folders
from training.evaluation.vectors import encoded

TASK = Task(
    "retrieval",
    "Exact search by cosine, queries and passages with the model's prompts, figures in percent as in "
    "trec_eval: nDCG@10 with linear gains; recall@100; MRR@100. A passage with the query's own id is passed "
    "over (BEIR). Means over queries, then over sets.",
    (
        Column("queries", "none", counts=True),
        Column("passages", "none", counts=True),
        Column("nDCG@10"),
        Column("recall@100"),
        Column("MRR"),
    ),
    "nDCG@10",
)
_DEPTH = 100
_NDCG_DEPTH = 10
Gains = Sequence[Mapping[int, float]]
Ranked = NDArray[np.int64]


def evaluate_retrieval(encoder: Encoder, data: Path) -> Report:
    """Return the figures of each set found by `retrieval_folders`."""
    folders = retrieval_folders(data)
    rows = {name: _figures(encoder, read_retrieval_set(folder)) for name, folder in folders.items()}
    return make_report(TASK, encoder, rows)


def _figures(encoder: Encoder, data: RetrievalSet) -> dict[str, Items | float]:
    queries = encoded(encoder, data.queries, "query")
    passages = encoded(encoder, data.passages, "document")
    found = nearest(queries, passages, _DEPTH + 1).rows
    ranked = [_without_itself(rows, data, query) for query, rows in enumerate(found)]
    return {
        "queries": float(len(queries)),
        "passages": float(len(passages)),
        "nDCG@10": mean_items(ndcg(ranked, data.judged, k=_NDCG_DEPTH)),
        "recall@100": mean_items(recall(ranked, data.judged, k=_DEPTH)),
        "MRR": mean_items(reciprocal_rank(ranked, data.judged, k=_DEPTH)),
    }


def _without_itself(rows: Ranked, data: RetrievalSet, query: int) -> Ranked:
    own = data.query_ids[query]
    kept = [row for row in rows.tolist() if row >= 0 and data.passage_ids[row] != own]
    return np.array(kept[:_DEPTH], np.int64)


def ndcg(ranked: Sequence[Ranked], judged: Gains, *, k: int) -> NDArray[np.float64]:
    """Return nDCG@k per query: gains over log2(rank + 1), over the same of the best order.

    ``ranked`` holds per query rows, best first; ``judged`` their gains, 0 or less for what is not relevant.
    (Järvelin and Kekäläinen, TOIS 2002, with the discount and linear gains of trec_eval.)
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    figures = []
    for rows, gains in zip(ranked, judged, strict=True):
        found = np.array([max(0, gains.get(row, 0)) for row in rows[:k].tolist()])
        best = np.array(sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:k])
        figures.append(found @ discounts[: len(found)] / (best @ discounts[: len(best)]))
    return np.array(figures)


def recall(ranked: Sequence[Ranked], judged: Gains, *, k: int) -> NDArray[np.float64]:
    """Return per query the share of the relevant rows that are among the first k."""
    return np.array(
        [
            sum(gains.get(row, 0) > 0 for row in rows[:k].tolist()) / sum(g > 0 for g in gains.values())
            for rows, gains in zip(ranked, judged, strict=True)
        ]
    )


def reciprocal_rank(ranked: Sequence[Ranked], judged: Gains, *, k: int) -> NDArray[np.float64]:
    """Return per query 1 / rank of the first relevant row, 0 if it is not among the first k."""
    figures = []
    for rows, gains in zip(ranked, judged, strict=True):
        ranks = (rank for rank, row in enumerate(rows[:k].tolist(), 1) if gains.get(row, 0) > 0)
        figures.append(1 / next(ranks, np.inf))
    return np.array(figures)
