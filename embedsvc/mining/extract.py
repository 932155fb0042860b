"""From candidates to the pairs that are kept."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from embedsvc.errors import InvalidInputError
from embedsvc.mining.margin import (
    BACKWARD,
    FORWARD,
    CandidatePairs,
    Margin,
    best_candidates,
    listed_candidates,
    merged,
)
from embedsvc.mining.matching import greedy_matching, optimal_matching
from indexing import BothWays

Retrieval = Literal["forward", "backward", "intersection", "max", "optimal"]
RETRIEVALS: tuple[Retrieval, ...] = get_args(Retrieval)

NEUTRAL: dict[Margin, float] = {"ratio": 1.0, "distance": 0.0, "absolute": 0.0}
"""The score of a pair that is no better than its neighbourhood: nothing is gained by choosing it."""


def mined_pairs(
    both: BothWays, margin: Margin, retrieval: Retrieval, *, threshold: float = -np.inf
) -> CandidatePairs:
    """Return the pairs of two sides given the neighbours of each; see `extract_pairs`.

    ``optimal`` looks at all k candidates of both sides, the others at the best one of each text. Its
    threshold is at least `NEUTRAL`: there is no gain in pairs below.
    """
    if retrieval == "optimal":
        threshold = max(threshold, NEUTRAL[margin])
        candidates = listed_candidates(both, margin, at_least=threshold)
    else:
        candidates = best_candidates(both, margin)
    return extract_pairs(*candidates, retrieval, threshold=threshold)


def extract_pairs(
    forward: CandidatePairs,
    backward: CandidatePairs,
    retrieval: Retrieval,
    *,
    threshold: float,
) -> CandidatePairs:
    """Return the pairs scoring at least ``threshold``, best first; ties by source row, then target row.

    forward       the best target of every source: a target may come several times
    backward      the best source of every target: a source may come several times
    intersection  the pairs that are both; one to one
    max           the best pair of either kind first, then the next whose two texts are still free, and
                  so on (Artetxe & Schwenk, 2019); one to one
    optimal       one to one, with the highest sum of ``score - threshold`` over the pairs. (A sum of bare
                  scores would force two poor pairs in place of a good one.) The threshold must be finite

    Raises InvalidInputError for an unknown retrieval.
    """
    pairs = merged(forward, backward)
    pairs = pairs.take(pairs.scores >= threshold)
    if retrieval == "forward":
        return pairs.take((pairs.directions & FORWARD) > 0)
    if retrieval == "backward":
        return pairs.take((pairs.directions & BACKWARD) > 0)
    if retrieval == "intersection":
        return pairs.take(pairs.directions == FORWARD | BACKWARD)
    if retrieval == "max":
        return pairs.take(greedy_matching(pairs.source_rows, pairs.target_rows))
    if retrieval == "optimal":
        gains = pairs.scores.astype(np.float64) - threshold
        return pairs.take(optimal_matching(pairs.source_rows, pairs.target_rows, gains))
    raise InvalidInputError(
        f"retrieval {retrieval!r} is unknown; choose {', '.join(RETRIEVALS)}", param="retrieval"
    )
