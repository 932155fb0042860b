"""What a ranking of XQuAD-R says about languages. A mode of search is a function from queries to rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from serve.report import table

from indexing.language_bias import (
    Judgements,
    average_precision,
    average_precision_by_language,
    found_shares,
    language_ndcg,
    language_preference,
    own_language_share,
)

Vectors = NDArray[np.float32]
Rank = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Query numbers ``(b,)`` to rows of the pool ``(b, k)``, best first, padded with -1.

mAP counts what is not among the k as never found; with k >= 1,000 that changes its third digit at most.
"""
_BATCH = 256
_TOP = 20


@dataclass(frozen=True)
class Bias:
    """Figures per query ``(q,)``, by name, and per language of the pool."""

    queries: NDArray[np.str_]
    figures: dict[str, NDArray[np.float64]]
    by_language: dict[str, NDArray[np.float64]]
    shares: dict[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """Return the means over queries; of the mAP per language, over languages of the means."""
        means = {name: float(np.nanmean(values)) for name, values in self.figures.items()}
        of_languages = [np.nanmean(values) for values in self.by_language.values()]
        return {**means, "per-language": float(np.mean(of_languages))}


def dense(queries: Vectors, passages: Vectors) -> Rank:
    """Return the ranking of the whole pool by inner product."""

    def rank(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        scores = queries[numbers] @ passages.T
        return np.argsort(-scores, axis=1).astype(np.int64, copy=False)

    return rank


def measure(rank: Rank, judged: Judgements, queries: NDArray[np.int64]) -> Bias:
    """Rank for the query numbers ``queries`` ``(b,)``, in batches, and return the figures."""
    parts = []
    for begin in range(0, len(queries), _BATCH):
        numbers = queries[begin : begin + _BATCH]
        parts.append(_measure_batch(rank(numbers), judged.take(numbers)))
    return Bias(
        judged.query_languages[queries],
        _joined([part.figures for part in parts]),
        _joined([part.by_language for part in parts]),
        _joined([part.shares for part in parts]),
    )


def _measure_batch(ranked: NDArray[np.int64], judged: Judgements) -> Bias:
    figures = {
        "pooled": average_precision(ranked, judged),
        "preference": language_preference(ranked, judged),
        "own share": own_language_share(ranked, judged, k=_TOP),
        "language nDCG": language_ndcg(ranked, judged),
    }
    by_language = average_precision_by_language(ranked, judged)
    return Bias(judged.query_languages, figures, by_language, found_shares(ranked, judged, k=_TOP))


def _joined(parts: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def summary(modes: dict[str, Bias]) -> str:
    """Return a Markdown table with a line per mode."""
    columns = ("pooled", "per-language", "preference", "own share", "language nDCG")
    head = ("", "mAP, pooled", "mAP, mean per language", "LPR", f"own share@{_TOP}", "Lang-nDCG@10")
    rows = []
    for mode, bias in modes.items():
        means = bias.means()
        rows.append([mode, *(f"{means[column]:.4f}" for column in columns)])
    return table(head, rows)


def languages(modes: dict[str, Bias]) -> str:
    """Return a Markdown table with a line per language.

    For each mode: pooled mAP of the questions in it, mAP of the questions of all languages in a pool of it
    alone, and its share of what is found, in percent.
    """
    rows = []
    for language in next(iter(modes.values())).by_language:
        cells = []
        for bias in modes.values():
            asked = bias.figures["pooled"][bias.queries == language]
            alone, share = bias.by_language[language], bias.shares[language]
            cells += [f"{asked.mean():.3f} / {np.nanmean(alone):.3f} / {100 * np.nanmean(share):.1f} %"]
        rows.append([language, *cells])
    return table(["", *modes], rows)
