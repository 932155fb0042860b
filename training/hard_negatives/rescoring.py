"""A cross-encoder's second opinion: negatives that it finds about as relevant as the positive are dropped."""

from __future__ import annotations

import numpy as np

from embedsvc.reranker import Reranker
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import NegativeRecord
from training.hard_negatives.selection import ceilings

CANDIDATES = 2
"""How many times ``count`` negatives are chosen when some of them may be dropped."""

_PER_NEGATIVE = ("negatives", "negative_languages", "negative_groups", "negative_scores")


def rescored(
    record: NegativeRecord, reranker: Reranker, options: NegativeOptions
) -> tuple[NegativeRecord, int]:
    """Return the record, its first ``count`` negatives that are not false, and how many are false.

    False are those that the cross-encoder scores above ``max_share`` of what it gives the positive (compare
    RocketQA, https://arxiv.org/abs/2010.08191). ``margin`` is one of cosines, and does not apply.
    """
    scores = reranker.scores(record.anchor, [record.positive, *record.negatives])
    rule = NegativeOptions(max_share=options.max_share)
    true = scores[1:] <= ceilings(scores[:1], rule)
    kept = np.flatnonzero(true)[: options.count].tolist()
    lists = {name: getattr(record, name) for name in _PER_NEGATIVE}
    changed = {name: values and [values[at] for at in kept] for name, values in lists.items()}
    relevances = {
        "positive_relevance": float(scores[0]),
        "negative_relevances": [float(scores[1 + at]) for at in kept],
    }
    return record.model_copy(update=changed | relevances), int((~true).sum())
