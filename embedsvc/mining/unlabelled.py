"""A calibration without any known pair: an estimate from the corpus' own scores.

Take away a sentence, and the one it was paired with has to find another partner. If the two were a true
pair, it is now as lonely as any sentence without a translation, and its new pair shows how false pairs score.
If they were not, the new pair is a second choice, which scores high more rarely, by a factor r. Taking second
choices away too shows third ones; with r alike from rank to rank, r is third over second. So, with the share
t of true pairs, the rate of high scores among new pairs is that of lonely sentences times
(t + (1 - t) r / e), e being the share of lonely sentences that get into a pair; and the number of false pairs
at every high score follows. What the corpus has beyond that are its true pairs. Of those that no threshold
finds nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions, Fit, Method, fit_of, summary
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.margin import CandidatePairs
from embedsvc.mining.mixture import ScoreBins, logistic, score_bins
from embedsvc.mining.plants import nearest_of, without_rows
from indexing import BothWays

SPARE_NEIGHBOURS = 2
"""Neighbours beyond k that the lists should have: as many as are taken away from a list."""

_FOLDS = 10  # a tenth of a side is taken away at a time, so that what remains is nearly the corpus
_ENOUGH = 20_000  # new pairs
_HIGH, _VERY_HIGH = 0.75, 0.95  # of second choices: the first bounds the fit, the other r
_ASSUMED_FOUND = 0.8  # of the true pairs; measured 0.5 to 0.9 with known ones
_SLOPE, _SLOPE_SPREAD = 2.5, 0.3  # log-normal prior: without it, scores that hardly tell give any slope
_ROUNDS, _STEPS = 20, 25
_NOTES = (
    "estimated without known pairs, from the scores alone; the intervals leave out the error of the method",
    f"recall supposes that {_ASSUMED_FOUND:.0%} of the true pairs are among the candidates",
)


@dataclass(frozen=True, eq=False)
class _Choices:
    """Of sentences whose partner was taken away: scores of the second and third choice, -inf without."""

    second: NDArray[np.float32]
    third: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Counts per bin of the corpus' pairs and of second choices; ``asked`` sentences gave those.

    ``ratio`` is r, and ``sentences`` the mean size of the two sides.
    """

    corpus: NDArray[np.float64]
    second: NDArray[np.float64]
    asked: int
    ratio: float
    sentences: float


def calibrate_unlabelled(both: BothWays, k: int, options: CalibrationOptions) -> Calibration:
    """Return the estimated calibration of a corpus, given neighbours of which the first ``k`` are mined with.

    The lists should hold `SPARE_NEIGHBOURS` more than k. Raises InvalidInputError if the corpus has no pair.
    """
    corpus = mined_pairs(nearest_of(both, k), options.margin, options.retrieval)
    bins = score_bins(corpus.scores, options.margin)
    random = np.random.default_rng(options.seed)
    choices = _later_choices(both, k, corpus, options, random)
    very_high = _quantile(choices.second, _VERY_HIGH)
    second, third = (int((scores >= very_high).sum()) for scores in (choices.second, choices.third))
    evidence = _Evidence(
        bins.counts(corpus.scores),
        bins.counts(choices.second[np.isfinite(choices.second)]),
        len(choices.second),
        (third + 1) / (second + 2),
        (len(both.x_to_y.rows) + len(both.y_to_x.rows)) / 2,
    )
    high = _quantile(choices.second, _HIGH)
    tail = np.arange(len(bins)) >= bins.of(np.array([high]))[0]
    start = _Parameters(0.1, np.array([-3.0, np.log(_SLOPE)]))
    fit, parameters = _fitted(bins, evidence, tail, start)
    replicates = [
        _fitted(bins, resampled, tail, parameters)[0].curves
        for resampled in _resampled(evidence, second, options.replicates, random)
    ]
    return summary(bins, fit, replicates, options, Method("unlabelled", notes=_NOTES))


def _quantile(scores: NDArray[np.float32], share: float) -> float:
    """Return the score that this share of the choices lies below; +inf without any."""
    return float(np.quantile(scores, share, method="higher")) if len(scores) else np.inf


def _later_choices(
    both: BothWays, k: int, pairs: CandidatePairs, options: CalibrationOptions, random: np.random.Generator
) -> _Choices:
    """Take away folds of a side in turn, then the second choices too, and see what their partners get."""
    second: list[NDArray[np.float32]] = []
    third: list[NDArray[np.float32]] = []
    sizes = len(both.x_to_y.rows), len(both.y_to_x.rows)
    folds = [random.integers(0, _FOLDS, size) for size in sizes]
    for fold in range(_FOLDS):
        for side in (0, 1):
            gone = folds[side] == fold
            taken = (pairs.source_rows, pairs.target_rows)[side]
            widowed = (pairs.source_rows, pairs.target_rows)[1 - side][gone[taken]]
            for scores in (second, third):
                found = np.full(sizes[1 - side], -np.inf, np.float32)
                partner = np.full(sizes[1 - side], -1)
                new = _mined_without(both, k, side, gone, options)
                own, other = (new.target_rows, new.source_rows)[:: 1 if side == 0 else -1]
                # Falling scores, so of several pairs of a sentence the first is the best.
                found[own[::-1]], partner[own[::-1]] = new.scores[::-1], other[::-1]
                scores.append(found[widowed])
                chosen = partner[widowed]
                gone[chosen[chosen >= 0]] = True
        if sum(part.size for part in second) >= _ENOUGH:
            break
    return _Choices(np.concatenate(second), np.concatenate(third))


def _mined_without(
    both: BothWays, k: int, side: int, gone: NDArray[np.bool_], options: CalibrationOptions
) -> CandidatePairs:
    hidden = [np.empty(0, np.int64)] * 2
    hidden[side] = np.flatnonzero(gone)
    return mined_pairs(nearest_of(without_rows(both, *hidden), k), options.margin, options.retrieval)


def _resampled(
    evidence: _Evidence, very_high: int, replicates: int, random: np.random.Generator
) -> Iterator[_Evidence]:
    for _ in range(replicates):
        yield _Evidence(
            random.poisson(evidence.corpus).astype(np.float64),
            random.poisson(evidence.second).astype(np.float64),
            evidence.asked,
            (random.binomial(very_high, evidence.ratio) + 1) / (very_high + 2),
            evidence.sentences,
        )


@dataclass(frozen=True, eq=False)
class _Parameters:
    """The share of true pairs among the corpus' pairs, and the coefficients a and s."""

    share: float
    coefficients: NDArray[np.float64]


def _fitted(
    bins: ScoreBins, evidence: _Evidence, tail: NDArray[np.bool_], start: _Parameters
) -> tuple[Fit, _Parameters]:
    """Fit the share of true pairs and, to the tail of the scores, the odds exp(a + exp(s) z) in turn."""
    pairs = float(evidence.corpus.sum())
    share, coefficients = start.share, start.coefficients
    for _ in range(_ROUNDS):
        per_second = _false_per_second_choice(evidence, pairs, share)
        counts = evidence.corpus[tail], evidence.second[tail]
        coefficients = _tail_fit(bins.feature[tail], *counts, per_second, coefficients)
        probabilities = logistic(coefficients[0] + np.exp(coefficients[1]) * bins.feature)
        before, share = share, float((evidence.corpus * probabilities).sum()) / max(pairs, 1)
        if abs(share - before) < 1e-4:
            break
    parameters = _Parameters(share, coefficients)
    return fit_of(evidence.corpus, probabilities, found=_ASSUMED_FOUND), parameters


def _false_per_second_choice(evidence: _Evidence, pairs: float, share: float) -> float:
    """How many false pairs of the corpus stand behind one second choice at the same high score."""
    false = pairs * (1 - share)
    lonely = max(evidence.sentences - pairs * share / _ASSUMED_FOUND, false)
    factor = share * false / lonely + (1 - share) * evidence.ratio
    return false / max(factor * evidence.asked, 1e-9)


def _tail_fit(
    feature: NDArray[np.float64],
    corpus: NDArray[np.float64],
    second: NDArray[np.float64],
    per_second: float,
    coefficients: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a and s by Fisher scoring.

    A bin has corpus pairs and second choices in the ratio q = per_second (1 + exp(a + exp(s) z)) : 1.
    """
    prior = np.array([0.0, 1 / _SLOPE_SPREAD**2])
    for _ in range(_STEPS):
        slope = np.exp(coefficients[1])
        p = logistic(coefficients[0] + slope * feature)
        q = per_second / np.maximum(1 - p, 1e-12)
        expected = q / (1 + q)
        design = np.stack([np.ones(len(feature)), slope * feature], axis=1)
        gradient = design.T @ (p * (corpus - (corpus + second) * expected))
        gradient -= prior * (coefficients - np.log(_SLOPE))
        weights = (corpus + second) * p**2 * expected / (1 + q)
        curvature = (design * weights[:, None]).T @ design + np.diag(prior + 1e-3)
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-4:
            break
    return coefficients
