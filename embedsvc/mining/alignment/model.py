"""What a bead is worth: the logarithm of how much likelier two blocks are as translations than by chance.

    score = log p(cosine | translations) / p(cosine | chance)
          + log p(lengths | translations) / p(lengths | chance)
          + log p(shape of the bead)

A sentence in no bead has the log of a small probability. All terms are of one unit, so nothing has to be
weighed by hand and beads of many sentences need no correction: two beads bring their evidence twice, a bead
that swallows a foreign sentence brings less than the bead without it. The distributions are normal; those
of translations are learnt from the two documents, in a first pass, so the encoder may be any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.alignment.band import Band, Ints, band_cells
from embedsvc.mining.alignment.blocks import Blocks
from embedsvc.mining.alignment.path import Skips
from embedsvc.mining.alignment.scoring import Chance, Floats, Shape, above_chance, band_scores

SKIPS = Skips(source=float(np.log(0.015)), target=float(np.log(0.015)))
_TYPICAL = 4.5, 2.0  # mean and spread of translations' cosines above chance, in spreads of chance
_TYPICAL_LENGTHS = 0.18  # spread of the log of the ratio of translations' lengths
_CHANCE = 0.09  # spread of cosines by chance where the documents are too short to tell
_PAIRS_OF_PRIOR = 5  # what stands above counts like this many pairs
_SAMPLES = 5_000
_COPY = 0.97  # a sentence left untranslated says nothing about translations
_WORST_LENGTHS = -4.0  # nats: a length says that much against a pair at most


@dataclass(frozen=True)
class Lengths:
    """The log of the ratio of lengths, target over source: its mean and its spread, also by chance."""

    mean: float
    spread: float
    chance_spread: float


@dataclass(frozen=True)
class Model:
    """Cosines above chance: mean and spread for translations, spread by chance (there the mean is 0)."""

    mean: float
    spread: float
    chance_spread: float
    lengths: Lengths | None

    @property
    def slope(self) -> float:
        """Nats per unit of cosine. Both spreads are taken as one, lest a very low cosine speak for a pair."""
        return 2 * self.mean / (self.spread**2 + self.chance_spread**2)


def first_model(source: Blocks, target: Blocks, chance: Chance) -> Model:
    """Return what is known before any alignment, from random pairs of sentences."""
    ends = _distant_pairs(source.sentences, target.sentences)
    _, above = above_chance(source, target, chance, (1, 1), ends)
    # The lower half: a few of the pairs may be alike for all that.
    lower = float(np.median(above) - np.quantile(above, 0.1587))
    spread = _weighed(lower, _CHANCE, min(source.sentences, target.sentences) - 1)
    lengths = None
    if source.lengths is not None and target.lengths is not None:
        ratios = _length_ratios(source, target, ends)
        mean = float(np.log(target.lengths[0].sum() / source.lengths[0].sum()))
        lengths = Lengths(mean, _TYPICAL_LENGTHS, max(float(ratios.std()), 2 * _TYPICAL_LENGTHS))
    return Model(_TYPICAL[0] * spread, _TYPICAL[1] * spread, spread, lengths)


def _distant_pairs(n: int, m: int) -> tuple[Ints, Ints]:
    """Return random pairs of sentences that are no translations: a quarter of the documents or more apart."""
    generator = np.random.default_rng(1)
    i = generator.integers(0, n, _SAMPLES)
    places = ((i + 0.5) / n + generator.uniform(0.25, 0.75, _SAMPLES)) % 1
    return i, np.minimum((places * m).astype(np.int64), m - 1)


def fitted_model(
    model: Model, source: Blocks, target: Blocks, chance: Chance, sizes: Sequence[Shape]
) -> Model:
    """Return the model with the distributions of the 1-1 beads of a first alignment."""
    moves = np.array(sizes, np.int64).reshape(-1, 2)
    ends = np.cumsum(moves, axis=0)[(moves == 1).all(axis=1)] - 1
    cosines, above = above_chance(source, target, chance, (1, 1), (ends[:, 0], ends[:, 1]))
    ends, above = ends[cosines < _COPY], above[cosines < _COPY]
    if not len(ends):
        return model
    last = (ends[:, 0], ends[:, 1])
    mean = _weighed(float(np.median(above)), model.mean, len(ends))
    spread = _weighed(_spread(above), model.spread, len(ends))
    lengths = model.lengths
    if lengths is not None:
        ratios = _length_ratios(source, target, last)
        lengths = replace(
            lengths, spread=max(_weighed(_spread(ratios - lengths.mean), lengths.spread, len(ends)), 0.05)
        )
    return Model(
        max(mean, model.chance_spread), max(spread, model.chance_spread / 2), model.chance_spread, lengths
    )


def _length_ratios(
    source: Blocks, target: Blocks, ends: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float64]:
    assert source.lengths is not None
    assert target.lengths is not None
    ratios: NDArray[np.float64] = np.log(target.lengths[0, ends[1]] / source.lengths[0, ends[0]])
    return ratios


def _spread(values: NDArray[np.floating]) -> float:
    """The standard deviation that a normal distribution with this median deviation would have."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _weighed(found: float, expected: float, count: int) -> float:
    return (count * found + _PAIRS_OF_PRIOR * expected) / (count + _PAIRS_OF_PRIOR)


def shape_log_probability(shape: Shape) -> float:
    """Return how likely beads of this shape are among all: 1-1 mostly, then 1-2 and 2-1."""
    few, many = sorted(shape)
    known = {(1, 1): 0.8, (1, 2): 0.06, (1, 3): 0.012, (2, 2): 0.015}
    return float(np.log(known.get((few, many), 0.003 * 0.5 ** (few + many - 5))))


@dataclass(frozen=True, eq=False)
class BeadScores:
    """The scores of the beads of two documents, for `best_path`."""

    source: Blocks
    target: Blocks
    chance: Chance
    model: Model
    shapes: Sequence[Shape]

    def of_rows(self, band: Band, begin: int, end: int) -> Floats:
        """Return (shapes, cells): the score of every shape that ends in each cell of the rows."""
        scores = band_scores(self.source, self.target, self.chance, band, (begin, end), self.shapes)
        model = self.model
        prior = np.array([shape_log_probability(shape) for shape in self.shapes])
        scores *= np.float32(model.slope)
        scores += (prior - model.slope * model.mean / 2).astype(np.float32)[:, None]
        if model.lengths is not None:
            rows, columns = band_cells(band, begin, end)
            ends = np.maximum(rows - 1, 0), np.maximum(columns - 1, 0)
            scores += self._length_scores(model.lengths, *ends)
        return scores

    def _length_scores(self, lengths: Lengths, i: Ints, j: Ints) -> Floats:
        logs = _log_lengths(self.source), _log_lengths(self.target) - np.float32(lengths.mean)
        found = np.empty((len(self.shapes), len(i)), np.float32)
        for position, (a, b) in enumerate(self.shapes):
            np.subtract(logs[1][b - 1, j], logs[0][a - 1, i], out=found[position])
        np.square(found, out=found)
        found *= np.float32(0.5 / lengths.chance_spread**2 - 0.5 / lengths.spread**2)
        found += np.float32(np.log(lengths.chance_spread / lengths.spread))
        return np.maximum(found, np.float32(_WORST_LENGTHS), out=found)


def _log_lengths(blocks: Blocks) -> Floats:
    assert blocks.lengths is not None
    logs: Floats = np.log(np.maximum(blocks.lengths, 1)).astype(np.float32)
    return logs
