"""The threshold and the probabilities of a corpus, from known pairs planted in it.

Three extractions are made beside that of the corpus. With both sides planted, the known pairs show how true
pairs score, and how many are not found at all. With only their sources, then only their targets planted,
nothing they are paired with can be right: that is how false pairs score. How many of the corpus' own pairs
are true follows from its scores, a mixture of the two (`mixture`). So precision and recall are those of the
corpus, whose share of true pairs is not that of the known ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions, Curves, Fit, Method, fit_of, summary
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.margin import CandidatePairs
from embedsvc.mining.mixture import Mixture, ScoreBins, ScoreCounts, fit_mixture, score_bins
from embedsvc.mining.plants import PlantedNeighbours, Plants, neighbours_with_plants, without_rows

LEAST_KNOWN = 20
"""With fewer known pairs nothing can be said about the next one."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """Scores of the corpus' pairs, counted, and of pairs of known kind.

    ``true`` and ``false`` are bins, ``true_of`` and ``false_of`` the numbers (below ``known``) of the known
    pairs that they come from: resampling takes known pairs, not scores.
    """

    bins: ScoreBins
    corpus: NDArray[np.float64]
    true: NDArray[np.intp]
    true_of: NDArray[np.int64]
    false: NDArray[np.intp]
    false_of: NDArray[np.int64]
    known: int


def calibrate(parts: PlantedNeighbours, plants: Plants, options: CalibrationOptions) -> Calibration:
    """Return the calibration of a corpus from known pairs planted in it.

    Raises InvalidInputError if there are fewer than `LEAST_KNOWN` usable known pairs, if none of them is
    found, or if the corpus has no pair to calibrate.
    """
    if len(plants.pairs) < LEAST_KNOWN:
        raise InvalidInputError(
            f"{len(plants.pairs)} development pairs can be used; calibration needs at least {LEAST_KNOWN}",
            param="dev",
        )
    sample = _sample(parts, plants, options)
    mixture, fit = _fitted(sample, np.ones(sample.known), sample.corpus, None)
    replicates = list(_replicates(sample, mixture, options))
    method = Method("development", sample.known, _notes(sample))
    return summary(sample.bins, fit, replicates, options, method)


def _notes(sample: _Sample) -> tuple[str, ...]:
    """Say it where false pairs are so few that the mixture rests on its first guess."""
    if len(sample.false) >= LEAST_KNOWN:
        return ()
    return (
        f"without their partners the known texts come into {len(sample.false)} pairs only: how false pairs "
        "score, and so precision and probabilities, is hardly known",
    )


def _sample(parts: PlantedNeighbours, plants: Plants, options: CalibrationOptions) -> _Sample:
    corpus = mined_pairs(parts.corpus, options.margin, options.retrieval).scores
    bins = score_bins(corpus, options.margin)
    both = neighbours_with_plants(parts, sources=True, targets=True)
    true_of, true = _found(mined_pairs(both, options.margin, options.retrieval), plants.pairs)
    if not len(true):
        raise InvalidInputError(
            f"none of the {len(plants.pairs)} development pairs is found among the corpus: is it the right "
            f"encoder, and are the languages those of the corpus?",
            param="dev",
        )
    false_of, false = _lonely(parts, plants, options)
    known = len(plants.pairs)
    return _Sample(bins, bins.counts(corpus), bins.of(true), true_of, bins.of(false), false_of, known)


def _lonely(
    parts: PlantedNeighbours, plants: Plants, options: CalibrationOptions
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs that known texts come into without their partners: of which known pair, and the score.

    A partner that stands in the corpus is taken from it for that, which costs the neighbourhoods an entry; so
    pairs that do are asked only where there are few others.
    """
    outside = np.all(plants.pairs >= plants.sizes, axis=1)
    asked = np.flatnonzero(outside) if outside.sum() >= LEAST_KNOWN else np.arange(len(plants.pairs))
    of, scores = [], []
    for side in (0, 1):
        hidden = [np.empty(0, np.int64)] * 2
        partners = plants.pairs[asked, 1 - side]
        hidden[1 - side] = partners[partners < plants.sizes[1 - side]]
        both = neighbours_with_plants(parts, sources=side == 0, targets=side == 1)
        pairs = mined_pairs(without_rows(both, *hidden), options.margin, options.retrieval)
        which, found = _of_rows(pairs, side, plants.pairs[asked, side])
        of.append(asked[which])
        scores.append(found)
    return np.concatenate(of), np.concatenate(scores)


def _found(pairs: CandidatePairs, known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which known pairs are among the pairs, and their scores."""
    keys = (pairs.source_rows << 32) | pairs.target_rows
    wanted = (known[:, 0] << 32) | known[:, 1]
    _, which, where = np.intersect1d(wanted, keys, assume_unique=True, return_indices=True)
    return which.astype(np.int64), pairs.scores[where]


def _of_rows(
    pairs: CandidatePairs, side: int, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs that have one of these (distinct) rows on a side: which of them, and the score."""
    own = (pairs.source_rows, pairs.target_rows)[side]
    order = np.argsort(rows)
    place = np.minimum(np.searchsorted(rows[order], own), len(rows) - 1)
    matches = rows[order][place] == own
    return order[place][matches].astype(np.int64), pairs.scores[matches]


def _fitted(
    sample: _Sample, times: NDArray[np.float64], corpus: NDArray[np.float64], start: Mixture | None
) -> tuple[Mixture, Fit]:
    """Fit with every known pair taken ``times`` (0, 1, …) times and these counts of the corpus."""
    size = len(sample.bins)
    true = np.bincount(sample.true, times[sample.true_of], size).astype(np.float64)
    false = np.bincount(sample.false, times[sample.false_of], size).astype(np.float64)
    mixture = fit_mixture(sample.bins, ScoreCounts(corpus, true, false), start=start)
    return mixture, fit_of(corpus, mixture.probabilities, found=true.sum() / times.sum())


def _replicates(sample: _Sample, mixture: Mixture, options: CalibrationOptions) -> Iterator[Curves]:
    random = np.random.default_rng(options.seed)
    for _ in range(options.replicates):
        times = random.multinomial(sample.known, np.full(sample.known, 1 / sample.known)).astype(np.float64)
        corpus = random.poisson(sample.corpus).astype(np.float64)
        yield _fitted(sample, times, corpus, mixture)[1].curves
