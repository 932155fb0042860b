"""How fair a ranking of a mixed pool is to its languages.

Every function takes rankings ``ranked`` ``(q, k)``: row numbers of the pool, best first, distinct within
a query, padded with -1; and the `Judgements` of the same ``q`` queries. Figures are per query, so that
callers can average over all or by language; NaN where a query cannot tell (`np.nanmean` passes over it).
Rankings may come in batches (`Judgements.take`), and their figures be concatenated.

All raise IndexingError for rankings that are no integers ``(q, k)`` or of other queries or rows than the
judgements, and for ``k`` below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.debias import check_labels
from indexing.errors import IndexingError

Rows = NDArray[np.int64]
Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Judgements:
    """Which rows of the pool answer which query, and the language of each.

    ``relevant[i]`` are the rows that answer query i, ``query_languages`` ``(q,)`` and ``row_languages``
    ``(n,)`` labels. Raises IndexingError where they do not fit each other.
    """

    relevant: Sequence[Rows]
    query_languages: NDArray[Any]
    row_languages: NDArray[Any]

    def __post_init__(self) -> None:
        check_labels(self.query_languages, len(self.relevant))
        check_labels(self.row_languages, len(self.row_languages))
        for query, rows in enumerate(self.relevant):
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.row_languages):
                raise IndexingError(
                    f"relevant[{query}] holds rows {rows.min()} to {rows.max()}; "
                    f"the pool has {len(self.row_languages)}"
                )

    def take(self, queries: Rows) -> Judgements:
        """Return those of some queries, by number ``(b,)``, in that order."""
        relevant = [self.relevant[query] for query in queries]
        return Judgements(relevant, self.query_languages[queries], self.row_languages)

    @cached_property
    def languages(self) -> NDArray[Any]:
        """The languages of the pool, ascending."""
        return np.unique(self.row_languages)

    @cached_property
    def codes(self) -> NDArray[np.int16]:
        """The position of each row's language in `languages`, ``(n + 1,)``; -1 last, which -1 finds."""
        return np.append(np.searchsorted(self.languages, self.row_languages), -1).astype(np.int16)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows are relevant, ``(q, n + 1)``; nothing in the last column, which -1 finds."""
        mask = np.zeros((len(self.relevant), len(self.row_languages) + 1), dtype=bool)
        for query, rows in enumerate(self.relevant):
            mask[query, rows] = True
        return mask

    @cached_property
    def own(self) -> NDArray[np.bool_]:
        """Which rows are in the query's language, as `mask`."""
        own = self.query_languages[:, np.newaxis] == self.row_languages
        return np.pad(own, ((0, 0), (0, 1)))

    def checked(self, ranked: Rows) -> Rows:
        """Return ``ranked`` ``(q, k)`` if it fits these queries and this pool; raise IndexingError."""
        if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer):
            raise IndexingError(f"ranked is {ranked.dtype} of shape {ranked.shape}; expected integers (q, k)")
        if len(ranked) != len(self.relevant):
            raise IndexingError(f"{len(ranked)} queries are ranked, {len(self.relevant)} judged")
        if ranked.size and not -1 <= ranked.min() <= ranked.max() < len(self.row_languages):
            raise IndexingError(
                f"ranked holds rows {ranked.min()} to {ranked.max()}; the pool has {len(self.row_languages)}"
            )
        return ranked

    def hits(self, ranked: Rows) -> NDArray[np.bool_]:
        """Which of the ranked rows are relevant, ``(q, k)``."""
        return np.take_along_axis(self.mask, self.checked(ranked), axis=1)


def average_precision(ranked: Rows, judged: Judgements) -> Figures:
    """Return ``(q,)``: the mean of the precisions at the ranks of all relevant rows, 0 for one not ranked.

    Over a pool of all languages with the answers in all of them, its mean over queries is the mAP of
    LAReQA (Roy et al. 2020, arXiv 2004.05484): full marks only if every right answer in any language
    comes before every wrong one in the query's own. NaN for a query without relevant rows.
    """
    query, place = np.nonzero(judged.hits(ranked))
    return _mean_precision(query, place + 1, judged.mask.sum(axis=1))


def average_precision_by_language(ranked: Rows, judged: Judgements) -> dict[str, Figures]:
    """Return, per language of the pool, ``(q,)`` average precisions as if the pool had only that language.

    What a model reaches in each language by itself, whatever it does between languages: the "weak
    alignment" that LAReQA (arXiv 2004.05484) sets beside the pooled mAP. NaN for a query without
    relevant rows in the language.
    """
    query, place = np.nonzero(judged.hits(ranked))
    found = judged.codes[ranked]
    of_hit = found[query, place]
    hits = zip(query.tolist(), place.tolist(), of_hit, strict=True)
    rank = np.array([np.count_nonzero(found[q, : p + 1] == code) for q, p, code in hits])
    asked, rows = np.nonzero(judged.mask)
    figures = {}
    for code, language in enumerate(judged.languages.tolist()):
        relevant = np.bincount(asked[judged.codes[rows] == code], minlength=len(ranked))
        figures[language] = _mean_precision(query[of_hit == code], rank[of_hit == code], relevant)
    return figures


def language_preference(ranked: Rows, judged: Judgements) -> Figures:
    """Return ``(q,)``: 1 if the best-ranked relevant row is in the query's language, 0 if in another.

    The mean is a Language Preference Rate after MLAIRE (Jang et al. 2026, arXiv 2605.07249), which asks
    which of several parallel passages a retriever prefers; the paper's formula was not at hand, so this
    is our reading of it. With one relevant row in each of L languages a retriever blind to language
    has 1 / L. NaN for a query with no relevant row in its language, or none in another, or none ranked.
    """
    hits = judged.hits(ranked)
    first = np.take_along_axis(ranked, hits.argmax(axis=1)[:, np.newaxis], axis=1)
    preferred = np.take_along_axis(judged.own, first, axis=1)[:, 0].astype(np.float64)
    choice = (judged.mask & judged.own).any(axis=1) & (judged.mask & ~judged.own).any(axis=1)
    return np.where(choice & hits.any(axis=1), preferred, np.nan)


def language_ndcg(ranked: Rows, judged: Judgements, *, k: int = 10) -> Figures:
    """Return ``(q,)`` nDCG@k with gain 2 for a relevant row in the query's language, 1 in another.

    For users who want answers that they can read, as Lang-nDCG of MLAIRE (arXiv 2605.07249); the paper's
    gains were not at hand, these are ours. Discount 1 / log2(rank + 1). NaN without relevant rows.
    """
    _check_k(k)
    ranked = ranked[:, :k]
    gains = judged.hits(ranked) * (1.0 + np.take_along_axis(judged.own, ranked, axis=1))
    discounts = 1 / np.log2(np.arange(2, k + 2))
    cumulated = np.append(0, np.cumsum(discounts))
    all_relevant, own_relevant = judged.mask.sum(axis=1), (judged.mask & judged.own).sum(axis=1)
    ideal = cumulated[np.minimum(all_relevant, k)] + cumulated[np.minimum(own_relevant, k)]
    return _divide(gains @ discounts[: gains.shape[1]], ideal)


def own_language_share(ranked: Rows, judged: Judgements, *, k: int = 10) -> Figures:
    """Return ``(q,)``: the share of the first ``k`` rows that are in the query's language, right or wrong.

    To be compared with the language's share of the relevant rows. NaN where nothing is ranked.
    """
    _check_k(k)
    ranked = judged.checked(ranked[:, :k])
    own = np.take_along_axis(judged.own, ranked, axis=1)
    return _divide(own.sum(axis=1), (ranked >= 0).sum(axis=1))


def found_shares(ranked: Rows, judged: Judgements, *, k: int = 10) -> dict[str, Figures]:
    """Return, per language of the pool, ``(q,)`` shares of the first ``k`` rows that are in it.

    A language found less often than it is relevant is one that the mixed pool hides. NaN where nothing
    is ranked.
    """
    _check_k(k)
    found = judged.codes[judged.checked(ranked[:, :k])]
    return {
        language: _divide((found == code).sum(axis=1), (found >= 0).sum(axis=1))
        for code, language in enumerate(judged.languages.tolist())
    }


def _mean_precision(query: Rows, rank: Rows, relevant: Rows) -> Figures:
    """Average precisions from the ranks of the hits, by query and rank, and the number to be found."""
    number = np.arange(len(query)) - np.searchsorted(query, query) + 1
    return _divide(np.bincount(query, weights=number / rank, minlength=len(relevant)), relevant)


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> Figures:
    """NaN instead of a division by zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Figures = np.where(denominator > 0, numerator / denominator, np.nan)
    return quotient


def _check_k(k: int) -> None:
    if k < 1:
        raise IndexingError(f"k is {k}; expected at least 1")
