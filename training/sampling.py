"""Which pairs make up batch number t. A pure function of (seed, t): resuming needs no saved state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags, joined
from training.draws import Draws, GroupDraws, OneLanguageDraws, PairDraws
from training.hard_negatives.drawing import DrawnNegatives, draw_negatives
from training.hard_negatives.mined import MinedNegatives
from training.relations import PairKeys, Positives, relation_matrix
from training.sampling_config import SamplingConfig

if TYPE_CHECKING:
    from training.augmentation import Augmentation


def pair_weights(
    language: NDArray[np.int16],
    characters: NDArray[np.int64],
    likeness: NDArray[np.float64],
    config: SamplingConfig,
) -> NDArray[np.float64]:
    """Return the relative chance of each pair: languages by n^exponent, short texts and sentences more often.

    characters, likeness (`training.likeness`): (pairs,) of the English text.
    """
    count = np.bincount(language).astype(np.float64)
    by_language = count[language] ** (config.language_exponent - 1.0)
    by_length = (1.0 + characters / config.length_pivot) ** -config.length_exponent
    weights: NDArray[np.float64] = by_language * by_length * (1.0 + config.sentences * likeness)
    return weights


@dataclass(frozen=True)
class ScoredRows:
    """The teacher's ``scores`` (B, n), and ``entry`` (B,): see `training.losses.pairs.ScoredPassages`."""

    scores: NDArray[np.float32]
    entry: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Both sides of B pairs: texts 0..B-1 are the English ones, B..2B-1 their translations.

    ``pairs`` (B,) are the rows of the source. ``relations`` int8 (B, B), made of ``keys``: see
    `training.relations`. ``teacher`` (B, teacher's dim) are its vectors of the English texts. Mined
    negatives, where there are any, stand in ``texts`` behind the pairs. With ``scored`` the pairs are
    queries and the best of n passages each; texts 2B.. are the n - 1 others, query by query.
    """

    texts: TokenBags
    pairs: NDArray[np.int64]
    keys: PairKeys
    relations: NDArray[np.int8]
    teacher: NDArray[np.float32] | None = None
    negatives: DrawnNegatives | None = None
    scored: ScoredRows | None = None


def masked(texts: TokenBags, share: float, mask_token: int, generator: np.random.Generator) -> TokenBags:
    """Return the texts with each token replaced by the mask token with the chance ``share``."""
    chosen = generator.random(len(texts.ids)) < share
    return TokenBags(np.where(chosen, mask_token, texts.ids).astype(np.int32), texts.starts)


class Batches(Protocol):
    """Batch number t of a run, the same whenever it is asked for."""

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``."""
        ...


@dataclass(frozen=True)
class PairSource:
    """The pairs to draw from: token bags of both sides, and the keys that tell translations apart."""

    english: TokenBags
    other: TokenBags
    group: NDArray[np.int32]  # (pairs,) row of `english`
    group_key: NDArray[np.int64]  # (pairs,) equal for the same English sentence
    other_key: NDArray[np.int64]  # (pairs,) equal for the same other text
    language: NDArray[np.int16]  # (pairs,) of the other text
    teacher: NDArray[np.float16] | None = None  # (english, teacher's dim), may be on disk
    mined: MinedNegatives | None = None


@dataclass(frozen=True)
class BatchShape:
    """How large a batch is and what may stand in it together; see `SamplingConfig`."""

    size: int
    token_dropout: float = 0.0
    batches: Literal["mixed", "one_language"] = "mixed"
    translations: int = 1
    positives: Positives = "own"
    negatives: int = 0


class BatchSampler:
    """Draw batches by weight, with replacement; ``batch(t)`` is the same whenever it is asked for."""

    def __init__(
        self,
        source: PairSource,
        weights: NDArray[np.float64],
        shape: BatchShape,
        *,
        seed: int,
        part: tuple[int, int] = (0, 1),
        augmentation: Augmentation | None = None,
    ) -> None:
        """``part`` (p, n) draws the p-th of n equal parts of each batch; ``augmentation`` changes texts."""
        self._source = source
        self._shape = shape
        self._seed = seed
        self._part = part
        self._augmentation = augmentation
        self._draw = _chosen_draws(source, weights, shape)

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``, or the part of it that is this process's."""
        generator = np.random.default_rng((self._seed, step))
        pairs = self._draw(self._shape.size, generator)
        source = self._source
        english_rows = source.group[pairs].astype(np.int64)
        texts = joined([source.english.part(english_rows), source.other.part(pairs)])
        if self._augmentation is not None:
            texts = self._augmentation.applied(texts, pairs, step)
        texts = self._dropped(texts, generator)
        drawn = None if source.mined is None else self._negatives(source.mined, pairs, generator)
        own = part_rows(len(pairs), self._part)
        if len(own) < len(pairs):
            texts = texts.part(np.concatenate([own, len(pairs) + own]))
            drawn = None if drawn is None else drawn.share(own, *self._part)
            pairs, english_rows = pairs[own], english_rows[own]
        keys = self._keys(pairs)
        return Batch(
            texts if drawn is None else joined([texts, drawn.texts]),
            pairs,
            keys,
            relation_matrix(keys, keys, positives=self._shape.positives),
            None if source.teacher is None else source.teacher[english_rows].astype(np.float32),
            drawn,
        )

    def _keys(self, pairs: NDArray[np.int64]) -> PairKeys:
        group = self._source.group_key[pairs]
        return PairKeys(source=group, target=self._source.other_key[pairs], group=group)

    def _negatives(
        self, mined: MinedNegatives, pairs: NDArray[np.int64], generator: np.random.Generator
    ) -> DrawnNegatives:
        drawn = draw_negatives(mined, pairs, self._keys(pairs), self._shape.negatives, generator)
        return replace(drawn, texts=self._dropped(drawn.texts, generator))

    def _dropped(self, texts: TokenBags, generator: np.random.Generator) -> TokenBags:
        share = self._shape.token_dropout
        return without_tokens(texts, share, generator) if share else texts


def part_rows(size: int, part: tuple[int, int]) -> NDArray[np.int64]:
    """Return the rows of part p of n; where they cannot be shared out evenly, the last few are nobody's."""
    number, parts = part
    share = size // parts
    return np.arange(number * share, (number + 1) * share)


def _chosen_draws(source: PairSource, weights: NDArray[np.float64], shape: BatchShape) -> Draws:
    if shape.batches == "one_language":
        return OneLanguageDraws(weights, source.language)
    if shape.translations > 1:
        return GroupDraws(weights, source.group_key, shape.translations)
    return PairDraws(weights)


def without_tokens(texts: TokenBags, share: float, generator: np.random.Generator) -> TokenBags:
    """Leave out a random share of the tokens; a text that would lose all of them keeps its first."""
    lengths = texts.lengths
    keep = generator.random(len(texts.ids)) >= share
    row = np.repeat(np.arange(len(lengths)), lengths)
    emptied = (lengths > 0) & (np.bincount(row[keep], minlength=len(lengths)) == 0)
    keep[texts.starts[:-1][emptied]] = True
    kept = np.bincount(row[keep], minlength=len(lengths))
    return TokenBags(texts.ids[keep], np.concatenate([[0], np.cumsum(kept)]))
