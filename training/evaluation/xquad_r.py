"""LAReQA's XQuAD-R (Roy et al. 2020, arXiv 2004.05484): answers in 11 languages ranked in one pool.

Beside the pooled mAP stand the figures of each language's pool by itself and those of language bias: what
a model knows of each language, and what it loses by preferring some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from indexing.language_bias import (
    Judgements,
    average_precision,
    average_precision_by_language,
    language_preference,
    own_language_share,
)
from training.evaluation.alignment import language_pull
from training.evaluation.items import Items, mean_items
from training.evaluation.report import Column, Report, Task, make_report
from training.evaluation.vectors import encoded
from training.evaluation.xquad_r_files import XquadR, read_xquad_r

TASK = Task(
    "xquad-r",
    "XQuAD-R of LAReQA, by language of the question, in percent. `pooled`: mAP over the sentences of all "
    "languages, with an answer in each; `any pool`: the mean mAP over pools of one language each; `own "
    "pool`: that of the question's language; `gap`: any pool less pooled, what mixing the languages costs; "
    "`own first`: how often the best answer is the one in the question's language; `own share`: of the first "
    "20 sentences, right or wrong (for both, 100 / languages is fair). By language of the sentences: `MRV`, "
    "the mean variance of the rank, in that language's pool, of a question's answer over the languages it is "
    "asked in (after CCRK, arXiv 2406.18254; 0: all the same); `language pull`: 100 times the mean cosine "
    "within the language less that to other languages (no interval).",
    (
        Column("questions", "none", counts=True),
        Column("pooled"),
        Column("any pool"),
        Column("own pool"),
        Column("gap", "lower"),
        Column("own first", "lower"),
        Column("own share", "lower"),
        Column("MRV", "lower"),
        Column("language pull", "lower"),
    ),
    "pooled",
    aligned=True,
)
_TOP = 20
_BATCH = 256
Vectors = NDArray[np.float32]
Numbers = NDArray[np.float64]


def evaluate_xquad_r(encoder: Encoder, data: Path) -> Report:
    """Return figures per language from the files that `read_xquad_r` finds."""
    files = read_xquad_r(data)
    queries = encoded(encoder, files.questions, "query")
    passages = encoded(encoder, files.passages, "document")
    measured = measure(queries, passages, files.judged)
    variances = rank_variances(measured.ranks, files)
    rows: dict[str, dict[str, Items | float]] = {}
    for position, language in enumerate(files.judged.languages.tolist()):
        asked = np.flatnonzero(files.judged.query_languages == language)
        rows[language] = {
            "questions": float(len(asked)),
            **measured.row(asked, position),
            "MRV": mean_items(variances[:, position], scale=1),
            "language pull": 100 * _pull(passages, files.judged.row_languages == language),
        }
    return make_report(TASK, encoder, rows)


def _pull(passages: Vectors, own: NDArray[np.bool_]) -> float:
    return language_pull(passages[own], passages[~own]) if own.sum() > 1 and not own.all() else float("nan")


@dataclass(frozen=True, eq=False)
class Measured:
    """Figures per question ``(q,)``; ``alone`` and ``ranks`` ``(q, languages)`` per pool of one language.

    ``ranks``: of the best-ranked answer in that language's pool, NaN without an answer there.
    """

    pooled: Numbers
    alone: Numbers
    own_first: Numbers
    own_share: Numbers
    ranks: Numbers

    def row(self, asked: NDArray[np.int64], language: int) -> dict[str, Items]:
        """Return the figures of the questions ``asked``, which are in the language at that position."""
        any_pool = np.nanmean(self.alone[asked], axis=1)
        return {
            "pooled": mean_items(self.pooled[asked]),
            "any pool": mean_items(any_pool),
            "own pool": mean_items(self.alone[asked, language]),
            "gap": mean_items(any_pool - self.pooled[asked]),
            "own first": mean_items(self.own_first[asked]),
            "own share": mean_items(self.own_share[asked]),
        }


def measure(queries: Vectors, passages: Vectors, judged: Judgements) -> Measured:
    """Rank all passages ``(n, dim)`` for all queries ``(q, dim)``, in batches, and return the figures."""
    parts = []
    for begin in range(0, len(queries), _BATCH):
        numbers = np.arange(begin, min(begin + _BATCH, len(queries)))
        parts.append(_measure_batch(queries[numbers] @ passages.T, judged.take(numbers)))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Measured(*(np.concatenate(column) for column in columns))


def _measure_batch(scores: Vectors, judged: Judgements) -> Measured:
    ranked = np.argsort(-scores, axis=1, kind="stable").astype(np.int64, copy=False)
    alone = average_precision_by_language(ranked, judged)
    return Measured(
        average_precision(ranked, judged),
        np.column_stack(list(alone.values())),
        language_preference(ranked, judged),
        own_language_share(ranked, judged, k=_TOP),
        _ranks(scores, judged),
    )


def _ranks(scores: Vectors, judged: Judgements) -> Numbers:
    """Return the rank of the best answer within each language's pool ``(q, languages)``."""
    columns = []
    for language in judged.languages:
        pool = np.flatnonzero(judged.row_languages == language)
        relevant = judged.mask[:, pool]
        best = np.where(relevant, scores[:, pool], -np.inf).max(axis=1)
        rank = 1.0 + (scores[:, pool] > best[:, np.newaxis]).sum(axis=1)
        columns.append(np.where(relevant.any(axis=1), rank, np.nan))
    return np.column_stack(columns)


def rank_variances(ranks: Numbers, files: XquadR) -> Numbers:
    """Return ``(questions, languages)``: the variance of ``ranks`` over the languages a question is asked in.

    ``ranks`` ``(q, languages)`` are of queries, several of which ask the same question (``files.keys``).
    """
    keys, question = np.unique(files.keys, return_inverse=True)
    number = np.bincount(question, minlength=len(keys))[:, np.newaxis]
    sums, squares = np.zeros((len(keys), ranks.shape[1])), np.zeros((len(keys), ranks.shape[1]))
    np.add.at(sums, question, ranks)
    means = sums / number
    np.add.at(squares, question, (ranks - means[question]) ** 2)
    variances: Numbers = squares / number
    return variances
