"""How fair a ranking of a mixed pool is to its languages.

Every function takes rankings ``ranked`` ``(q, k)``: row numbers of the pool, best first, distinct within
a query, padded with -1; and ``relevant``, the rows that answer each of the ``q`` queries. Figures are per
query, so that callers can average over all or by language; NaN where a query cannot tell (`np.nanmean`).
Rankings may be given in batches of queries, and the figures concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.debias import check_labels
from indexing.errors import IndexingError

Rows = NDArray[np.int64]
Labels = NDArray[Any]
Figures = NDArray[np.float64]


def average_precision(ranked: Rows, relevant: Sequence[Rows]) -> Figures:
    """Return ``(q,)``: the mean of the precisions at the ranks of all relevant rows, 0 for one not ranked.

    Over a pool of all languages with the answers in all of them, its mean over queries is the mAP of
    LAReQA (Roy et al. 2020, arXiv 2004.05484): full marks only if every right answer in any language
    comes before every wrong one in the query's own. NaN for a query without relevant rows.

    Raises:
        IndexingError: ``ranked`` is no array ``(q, k)`` of integers, or ``relevant`` is not for q queries.
    """
    hits = _hits(ranked, relevant)
    return _mean_precision(hits, np.ones_like(hits), np.array([len(np.unique(rows)) for rows in relevant]))


def average_precision_by_language(
    ranked: Rows, relevant: Sequence[Rows], row_languages: Labels
) -> dict[str, Figures]:
    """Return, per language of the pool, ``(q,)`` average precisions as if the pool were in that language only.

    What a model reaches on its own in each language, whatever it does between languages: the "weak
    alignment" that LAReQA (arXiv 2004.05484) sets beside the pooled mAP. NaN for a query without
    relevant rows in the language. ``row_languages`` ``(n,)`` are the languages of the pool's rows.

    Raises:
        IndexingError: as `average_precision`, or a row is not in ``row_languages``.
    """
    languages, codes = _codes(row_languages, ranked, relevant)
    hits, found = _hits(ranked, relevant), codes[ranked]
    figures = {}
    for code, language in enumerate(languages.tolist()):
        inside = found == code
        counts = np.array([(codes[np.unique(rows)] == code).sum() for rows in relevant])
        figures[language] = _mean_precision(hits & inside, inside, counts)
    return figures


def language_preference(
    ranked: Rows, relevant: Sequence[Rows], query_languages: Labels, row_languages: Labels
) -> Figures:
    """Return ``(q,)``: 1 if the best-ranked relevant row is in the query's language, 0 if in another.

    The mean is a Language Preference Rate after MLAIRE (Jang et al. 2026, arXiv 2605.07249), which asks
    which of several parallel passages a retriever prefers; the paper's formula was not at hand, so this
    is the plain reading of it. With one relevant row in each of L languages a retriever blind to
    language has 1 / L. NaN for a query with no relevant row in its language, with none in another, or
    with none ranked.

    Raises:
        IndexingError: as `average_precision_by_language`, or ``query_languages`` are not q labels.
    """
    hits, own = _hits(ranked, relevant), _own(ranked, relevant, query_languages, row_languages)
    first = hits.argmax(axis=1)[:, np.newaxis]
    prefers = np.take_along_axis(own, first, axis=1)[:, 0].astype(np.float64)
    own_count, count = _relevant_counts(relevant, query_languages, row_languages)
    undecided = ~hits.any(axis=1) | (own_count == 0) | (own_count == count)
    prefers[undecided] = np.nan
    return prefers


def language_ndcg(
    ranked: Rows,
    relevant: Sequence[Rows],
    query_languages: Labels,
    row_languages: Labels,
    *,
    k: int = 10,
) -> Figures:
    """Return ``(q,)`` nDCG@k with gain 2 for a relevant row in the query's language, 1 in another.

    For users who want answers they can read, as Lang-nDCG of MLAIRE (arXiv 2605.07249); the paper's gains
    were not at hand, these are ours. Discount 1 / log2(rank + 1). NaN for a query without relevant rows.

    Raises:
        IndexingError: as `language_preference`, or ``k`` is not positive.
    """
    _check_k(k)
    gains = _hits(ranked, relevant) * (1.0 + _own(ranked, relevant, query_languages, row_languages))
    discounts = 1 / np.log2(np.arange(2, k + 2))
    reached = gains[:, :k] @ discounts[: ranked.shape[1]]
    own_count, count = _relevant_counts(relevant, query_languages, row_languages)
    cumulated = np.concatenate([[0], np.cumsum(discounts)])
    ideal = cumulated[np.minimum(count, k)] + cumulated[np.minimum(own_count, k)]
    return _divide(reached, ideal)


def own_language_share(
    ranked: Rows, query_languages: Labels, row_languages: Labels, *, k: int = 10
) -> Figures:
    """Return ``(q,)``: the share of the first ``k`` rows that are in the query's language, right or wrong.

    To be compared with the language's share of the relevant rows. NaN where nothing is ranked.

    Raises:
        IndexingError: as `language_preference`, or ``k`` is not positive.
    """
    _check_k(k)
    ranked = ranked[:, :k]
    own = _own(ranked, [], query_languages, row_languages)
    return _divide(own.sum(axis=1), (ranked >= 0).sum(axis=1))


def found_shares(
    ranked: Rows, relevant: Sequence[Rows], row_languages: Labels, *, k: int = 10
) -> dict[str, tuple[float, float]]:
    """Return, per language of the pool, its share of all rows within the first ``k``, and of all relevant ones.

    A language found less often than it is relevant is the one that the mixed pool hides.

    Raises:
        IndexingError: as `average_precision_by_language`, or ``k`` is not positive.
    """
    _check_k(k)
    languages, codes = _codes(row_languages, ranked, relevant)
    found = codes[ranked[:, :k]][ranked[:, :k] >= 0]
    right = codes[np.concatenate([np.unique(rows) for rows in relevant])]
    shares = (_divide(np.bincount(part, minlength=len(languages)), len(part)) for part in (found, right))
    return dict(zip(languages.tolist(), zip(*(share.tolist() for share in shares), strict=True), strict=True))


def _hits(ranked: Rows, relevant: Sequence[Rows]) -> NDArray[np.bool_]:
    """Which of the ranked rows are relevant, ``(q, k)``."""
    if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer):
        raise IndexingError(
            f"ranked has dtype {ranked.dtype}, shape {ranked.shape}; expected integers (q, k)"
        )
    if len(ranked) != len(relevant):
        raise IndexingError(f"rankings are for {len(ranked)} queries, relevant rows for {len(relevant)}")
    last = max((int(rows.max()) for rows in (ranked, *relevant) if rows.size), default=0)
    mask = np.zeros((len(ranked), last + 2), dtype=bool)  # the last column is what padding (-1) finds
    for query, rows in enumerate(relevant):
        mask[query, rows] = True
    return np.take_along_axis(mask, ranked, axis=1)


def _mean_precision(hits: NDArray[np.bool_], counted: NDArray[np.bool_], relevant: Rows) -> Figures:
    """Average precision where only the ``counted`` places of the ranking exist."""
    ranks = np.cumsum(counted, axis=1, dtype=np.int32)
    query, place = np.nonzero(hits)
    so_far = np.cumsum(hits, axis=1, dtype=np.int32)[query, place]
    sums = np.bincount(query, weights=so_far / ranks[query, place], minlength=len(hits))
    return _divide(sums, relevant)


def _codes(
    row_languages: Labels, ranked: Rows, relevant: Sequence[Rows]
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The languages, and the number of each row's; -1, at the end, for padding."""
    languages, codes = np.unique(check_labels(row_languages, len(row_languages)), return_inverse=True)
    last = max((int(rows.max()) for rows in (ranked, *relevant) if rows.size), default=-1)
    if last >= len(codes):
        raise IndexingError(f"row {last} is ranked or relevant; there are languages of {len(codes)} rows")
    return languages, np.append(codes, -1)


def _own(
    ranked: Rows, relevant: Sequence[Rows], query_languages: Labels, row_languages: Labels
) -> NDArray[np.bool_]:
    """Which of the ranked rows are in the query's language, ``(q, k)``; padding is not."""
    languages, codes = _codes(row_languages, ranked, relevant)
    queries = check_labels(query_languages, len(ranked))
    own: NDArray[np.bool_] = np.append(languages, "")[codes[ranked]] == queries[:, np.newaxis]
    return own & (ranked >= 0)


def _relevant_counts(
    relevant: Sequence[Rows], query_languages: Labels, row_languages: Labels
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many rows are relevant to each query: in its language, and in all."""
    pairs = zip(relevant, query_languages, strict=True)
    own = [int((row_languages[np.unique(rows)] == language).sum()) for rows, language in pairs]
    return np.array(own, dtype=np.int64), np.array(
        [len(np.unique(rows)) for rows in relevant], dtype=np.int64
    )


def _divide(numerator: NDArray[Any], denominator: Any) -> Figures:
    """NaN instead of a division by zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Figures = np.where(denominator > 0, numerator / denominator, np.nan)
    return quotient


def _check_k(k: int) -> None:
    if k < 1:
        raise IndexingError(f"k is {k}; expected at least 1")
