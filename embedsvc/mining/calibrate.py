"""The threshold and the probabilities of a corpus, from known pairs planted in it or from its scores alone.

With known pairs, three extractions are made beside that of the corpus. With both sides planted, the known
pairs show how true pairs score, and how many are not found at all. With only their sources, then only their
targets planted, nothing they are paired with can be right: that is how false pairs score. How many of the
corpus' own pairs are true follows from its scores, a mixture of the two (`mixture`). So precision and recall
are those of the corpus, whose share of true pairs is not that of the known ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibration import Calibration, CurvePoint, Estimate, MadeBy
from embedsvc.mining.extract import Retrieval, mined_pairs
from embedsvc.mining.isotonic import isotonic
from embedsvc.mining.margin import CandidatePairs, Margin
from embedsvc.mining.mixture import Mixture, ScoreBins, ScoreCounts, fit_mixture, score_bins
from embedsvc.mining.plants import PlantedNeighbours, Plants, neighbours_with_plants, without_rows

REPLICATES = 200
LEAST_KNOWN = 20
"""With fewer known pairs nothing can be said about the next one."""

_CURVE_POINTS = 25


@dataclass(frozen=True)
class CalibrationOptions:
    """``precision`` is the wanted one (0 to 1), None asks for the best F1; ``seed`` is of the bootstrap."""

    margin: Margin = "ratio"
    retrieval: Retrieval = "max"
    precision: float | None = None
    replicates: int = REPLICATES
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of the corpus' pairs, and of pairs of known kind with the known pair each comes from.

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


@dataclass(frozen=True, eq=False)
class _Curves:
    """At or above the lower edge of every bin: ``pairs``, and those ``right``; and all true pairs there are."""

    pairs: NDArray[np.float64]
    right: NDArray[np.float64]
    true_pairs: float

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.right / np.maximum(self.pairs, 1e-9)

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.right / max(self.true_pairs, 1e-9)

    @property
    def f1(self) -> NDArray[np.float64]:
        return 2 * self.right / np.maximum(self.pairs + self.true_pairs, 1e-9)


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
    return _calibrated(_sample(parts, plants, options), options, "development")


def _sample(parts: PlantedNeighbours, plants: Plants, options: CalibrationOptions) -> Sample:
    corpus = mined_pairs(parts.corpus, options.margin, options.retrieval).scores
    if not len(corpus):
        raise InvalidInputError("the corpus has no pairs: there is nothing to calibrate")
    bins = score_bins(corpus, options.margin)
    everything = neighbours_with_plants(parts, sources=True, targets=True)
    true_of, true = _found(mined_pairs(everything, options.margin, options.retrieval), plants.pairs)
    if not len(true):
        raise InvalidInputError(
            f"none of the {len(plants.pairs)} development pairs is found among the corpus: is it the right "
            f"encoder, and are the languages those of the corpus?",
            param="dev",
        )
    false_of, false = _lonely(parts, plants, options)
    return Sample(
        bins, bins.counts(corpus), bins.of(true), true_of, bins.of(false), false_of, len(plants.pairs)
    )


def _lonely(
    parts: PlantedNeighbours, plants: Plants, options: CalibrationOptions
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs that texts of known pairs come into without their partners: of which one, and the score.

    A partner that stands in the corpus is taken from it for that, which costs the neighbourhoods an entry; so
    pairs that do are asked only where there are few others.
    """
    outside = (plants.pairs >= plants.sizes).all(axis=1)
    asked = np.flatnonzero(outside) if outside.sum() >= LEAST_KNOWN else np.arange(len(outside))
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


def _calibrated(sample: Sample, options: CalibrationOptions, made_by: MadeBy) -> Calibration:
    mixture, curves = _fitted(sample, np.ones(sample.known), sample.corpus, None)
    replicates = list(_replicates(sample, mixture, options))
    chosen, notes = _chosen(replicates, options.precision)
    own = [_chosen([replicate], options.precision)[0] for replicate in replicates]
    lower_edges = np.concatenate([[-np.inf], sample.bins.edges])
    thresholds = np.maximum(lower_edges, sample.bins.edges[0])
    return Calibration(
        made_by=made_by,
        margin=options.margin,
        retrieval=options.retrieval,
        goal=options.precision,
        threshold=_estimate(thresholds[chosen], thresholds[own]),
        precision=_estimate(curves.precision[chosen], [curve.precision[chosen] for curve in replicates]),
        recall=_estimate(curves.recall[chosen], [curve.recall[chosen] for curve in replicates]),
        f1=_estimate(curves.f1[chosen], [curve.f1[chosen] for curve in replicates]),
        true_pairs=_estimate(curves.true_pairs, [curve.true_pairs for curve in replicates]),
        known_pairs=sample.known,
        seed=options.seed,
        score_knots=tuple(thresholds.tolist()),
        probability_knots=tuple(isotonic(mixture.probabilities, sample.corpus + 1e-9).tolist()),
        curve=_curve(thresholds, curves),
        notes=notes,
    )


def _fitted(
    sample: Sample, times: NDArray[np.float64], corpus: NDArray[np.float64], start: Mixture | None
) -> tuple[Mixture, _Curves]:
    """Fit with every known pair taken ``times`` (0, 1, …) times and these counts of the corpus."""
    size = len(sample.bins)
    true = np.bincount(sample.true, times[sample.true_of], size).astype(np.float64)
    false = np.bincount(sample.false, times[sample.false_of], size).astype(np.float64)
    mixture = fit_mixture(sample.bins, ScoreCounts(corpus, true, false), start=start)
    right = corpus * mixture.probabilities
    found = true.sum() / times.sum()
    return mixture, _Curves(_from_top(corpus), _from_top(right), right.sum() / max(found, 1e-9))


def _from_top(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(counts[::-1])[::-1]


def _replicates(sample: Sample, mixture: Mixture, options: CalibrationOptions) -> Iterator[_Curves]:
    random = np.random.default_rng(options.seed)
    for _ in range(options.replicates):
        times = random.multinomial(sample.known, np.full(sample.known, 1 / sample.known)).astype(np.float64)
        yield _fitted(sample, times, random.poisson(sample.corpus).astype(np.float64), mixture)[1]


def _chosen(replicates: list[_Curves], precision: float | None) -> tuple[int, tuple[str, ...]]:
    """Return the bin to cut at: best by the mean over the replicates, smoother than any single curve."""
    if precision is None:
        return int(np.mean([curves.f1 for curves in replicates], axis=0).argmax()), ()
    mean = np.mean([curves.precision for curves in replicates], axis=0)
    enough = np.flatnonzero(mean >= precision)
    if len(enough):
        return int(enough[0]), ()
    best = int(mean.argmax())
    return best, (
        f"no threshold is expected to give precision {precision:g}; the best gives {mean[best]:.3f}",
    )


def _estimate(value: float, replicates: list[float] | NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def _curve(thresholds: NDArray[np.float64], curves: _Curves) -> tuple[CurvePoint, ...]:
    places = np.unique(np.linspace(0, len(thresholds) - 1, _CURVE_POINTS).astype(int))
    return tuple(
        CurvePoint(
            float(thresholds[place]),
            int(curves.pairs[place]),
            *(float(values[place]) for values in (curves.precision, curves.recall, curves.f1)),
        )
        for place in places
    )
