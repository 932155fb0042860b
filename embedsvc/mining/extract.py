"""From each text's best candidate to the pairs that are kept."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.margin import CandidatePairs

Retrieval = Literal["forward", "backward", "intersection", "max"]
RETRIEVALS: tuple[Retrieval, ...] = get_args(Retrieval)


def extract_pairs(
    forward: CandidatePairs, backward: CandidatePairs, retrieval: Retrieval, *, threshold: float
) -> CandidatePairs:
    """Return the pairs scoring at least ``threshold``, best first; ties by source row, then target row.

    forward       the best target of every source: a target may come several times
    backward      the best source of every target: a source may come several times
    intersection  the pairs that are both; one to one
    max           the best pair of either kind first, then the next whose two texts are still free, and
                  so on (Artetxe & Schwenk, 2019); one to one

    Raises InvalidInputError for an unknown retrieval.
    """
    if retrieval == "forward":
        pairs = forward
    elif retrieval == "backward":
        pairs = backward
    elif retrieval == "intersection":
        pairs = forward.take(np.isin(_keys(forward), _keys(backward)))
    elif retrieval == "max":
        pairs = _union(forward, backward)
    else:
        raise InvalidInputError(
            f"retrieval {retrieval!r} is unknown; choose {', '.join(RETRIEVALS)}", param="retrieval"
        )
    pairs = _best_first(pairs.take(pairs.scores >= threshold))
    return pairs.take(_greedy_one_to_one(pairs)) if retrieval == "max" else pairs


def _keys(pairs: CandidatePairs) -> NDArray[np.int64]:
    """One number per pair, equal for equal pairs; rows stay below 2**31."""
    return (pairs.source_rows << 32) | pairs.target_rows


def _union(forward: CandidatePairs, backward: CandidatePairs) -> CandidatePairs:
    added = backward.take(~np.isin(_keys(backward), _keys(forward)))
    return CandidatePairs(
        np.concatenate([forward.scores, added.scores]),
        np.concatenate([forward.source_rows, added.source_rows]),
        np.concatenate([forward.target_rows, added.target_rows]),
    )


def _best_first(pairs: CandidatePairs) -> CandidatePairs:
    return pairs.take(np.lexsort((pairs.target_rows, pairs.source_rows, -pairs.scores)))


def _greedy_one_to_one(pairs: CandidatePairs) -> NDArray[np.bool_]:
    """Return the mask of the pairs, taken in order, whose texts no earlier taken pair has."""
    taken_sources: set[int] = set()
    taken_targets: set[int] = set()
    kept = np.zeros(len(pairs.scores), bool)
    both = zip(pairs.source_rows.tolist(), pairs.target_rows.tolist(), strict=True)
    for position, (source, target) in enumerate(both):
        if source not in taken_sources and target not in taken_targets:
            taken_sources.add(source)
            taken_targets.add(target)
            kept[position] = True
    return kept
