"""Which pairs make up batch number t. A pure function of (seed, t): resuming needs no saved state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import SamplingConfig
from training.data import TokenBags


def pair_weights(
    language: NDArray[np.int16], characters: NDArray[np.int64], config: SamplingConfig
) -> NDArray[np.float64]:
    """Return the relative chance of each pair: languages by n^exponent, shorter texts more often."""
    count = np.bincount(language).astype(np.float64)
    by_language = count[language] ** (config.language_exponent - 1.0)
    by_length = (1.0 + characters / config.length_pivot) ** -config.length_exponent
    weights: NDArray[np.float64] = by_language * by_length
    return weights


@dataclass(frozen=True)
class Batch:
    """Both sides of B pairs as bags over the batch's own distinct tokens.

    Rows 0..B-1 are the English texts, rows B..2B-1 their translations. ``tokens`` (u,) are the
    distinct vocabulary ids; ``positions`` index into them; ``offsets`` (2B,) start each bag.
    ``ignored`` (B, B) marks pairs of columns that are not true negatives of each other.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class PairSource:
    """The pairs to draw from: token bags of both sides, and the keys that tell translations apart."""

    english: TokenBags
    other: TokenBags
    group: NDArray[np.int32]  # (pairs,) row of `english`
    group_key: NDArray[np.int64]  # (pairs,) equal for the same English sentence
    other_key: NDArray[np.int64]  # (pairs,) equal for the same other text


class BatchSampler:
    """Draw batches by weight, with replacement; ``batch(t)`` is the same whenever it is asked for."""

    def __init__(
        self, source: PairSource, weights: NDArray[np.float64], *, size: int, seed: int, token_dropout: float
    ) -> None:
        self._source = source
        self._cumulative = np.cumsum(weights)
        self._size = size
        self._seed = seed
        self._token_dropout = token_dropout

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``."""
        generator = np.random.default_rng((self._seed, step))
        draws = generator.random(self._size) * self._cumulative[-1]
        pairs = np.minimum(np.searchsorted(self._cumulative, draws, side="right"), len(self._cumulative) - 1)
        source = self._source
        english, english_lengths = source.english.take(source.group[pairs].astype(np.int64))
        other, other_lengths = source.other.take(pairs)
        ids = np.concatenate([english, other])
        lengths = np.concatenate([english_lengths, other_lengths])
        if self._token_dropout:
            ids, lengths = _drop_tokens(ids, lengths, self._token_dropout, generator)
        tokens, positions = np.unique(ids, return_inverse=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        ignored = _same(source.group_key[pairs]) | _same(source.other_key[pairs])
        np.fill_diagonal(ignored, False)
        return Batch(tokens.astype(np.int64), positions.astype(np.int64), offsets, ignored)


def _same(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = keys[:, None] == keys[None, :]
    return equal


def _drop_tokens(
    ids: NDArray[np.int32], lengths: NDArray[np.int64], share: float, generator: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Leave out a random share of the tokens; a text that would lose all of them keeps its first."""
    keep = generator.random(len(ids)) >= share
    row = np.repeat(np.arange(len(lengths)), lengths)
    first = np.cumsum(lengths) - lengths
    emptied = (lengths > 0) & (np.bincount(row[keep], minlength=len(lengths)) == 0)
    keep[first[emptied]] = True
    return ids[keep], np.bincount(row[keep], minlength=len(lengths)).astype(np.int64)
