"""Evaluation during training: rank translations of sentences that were never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from training.data import TokenBags
from training.evaluation.tatoeba import accuracies
from training.sampling import PairSource

_LEAST_GROUPS = 10


@dataclass(frozen=True)
class HeldOut:
    """Aligned bags (row i of one translates row i of the other), each English sentence once.

    ``excluded`` (pairs,) marks every pair whose English sentence is held out, in any language.
    """

    english: TokenBags
    other: TokenBags
    excluded: NDArray[np.bool_]


def split_held_out(source: PairSource, *, groups: int, seed: int) -> HeldOut:
    """Keep ``groups`` English sentences aside (at most a tenth), each with one random translation."""
    generator = np.random.default_rng((seed, 0x4E1D))
    excluded = np.isin(source.group_key, held_out_keys(source.group_key, groups, generator))
    rows = generator.permutation(np.flatnonzero(excluded))
    _, first = np.unique(source.group_key[rows], return_index=True)
    rows = rows[np.sort(first)]
    return HeldOut(
        _subset(source.english, source.group[rows].astype(np.int64)), _subset(source.other, rows), excluded
    )


def held_out_keys(keys: NDArray[np.int64], groups: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the different keys of what is kept aside: ``groups`` of them, at most a tenth."""
    different = np.unique(keys)
    if len(different) < _LEAST_GROUPS:
        raise InvalidInputError(f"{len(different)} different texts to learn; at least {_LEAST_GROUPS} needed")
    chosen: NDArray[np.int64] = generator.choice(
        different, size=min(groups, len(different) // 10), replace=False
    )
    return chosen


def _subset(bags: TokenBags, rows: NDArray[np.int64]) -> TokenBags:
    ids, lengths = bags.take(rows)
    return TokenBags(ids, np.concatenate([[0], np.cumsum(lengths)]))


def ranking_accuracy(vectors: Callable[[TokenBags], NDArray[np.float32]], held_out: HeldOut) -> float:
    """Return the share of held-out texts whose nearest neighbour is their translation, both ways averaged.

    vectors: texts to unit rows (texts, dim).
    """
    return sum(accuracies(vectors(held_out.english), vectors(held_out.other))) / 200
