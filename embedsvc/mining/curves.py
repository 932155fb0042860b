"""Precision, recall and F1 at every threshold, and the calibration that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.calibration import Calibration, CurvePoint, Estimate, MadeBy
from embedsvc.mining.extract import Retrieval
from embedsvc.mining.isotonic import isotonic
from embedsvc.mining.margin import Margin
from embedsvc.mining.mixture import ScoreBins

REPLICATES = 200
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
class Curves:
    """What is expected at or above the lower edge of every bin ``(bins,)``.

    ``pairs`` are there, ``right`` of them true; ``true_pairs`` is how many the corpus holds altogether.
    """

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


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit says: the probability that a pair is true, per bin ``(bins,)``, and the curves."""

    probabilities: NDArray[np.float64]
    curves: Curves


def fit_of(counts: NDArray[np.float64], probabilities: NDArray[np.float64], *, found: float) -> Fit:
    """Return the fit for a corpus with these counts, which hold the share ``found`` of its true pairs."""
    right = counts * probabilities
    return Fit(probabilities, Curves(_from_top(counts), _from_top(right), right.sum() / max(found, 1e-9)))


def _from_top(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(counts[::-1])[::-1]


@dataclass(frozen=True)
class Method:
    """How a calibration was made, for its reader."""

    made_by: MadeBy
    known_pairs: int = 0
    notes: tuple[str, ...] = ()


def summary(
    bins: ScoreBins, fit: Fit, replicates: Sequence[Curves], options: CalibrationOptions, method: Method
) -> Calibration:
    """Return the calibration of a fit, with intervals from fits to resampled scores."""
    curves = fit.curves
    chosen, notes = _chosen(replicates, options.precision)
    own = [_chosen([replicate], options.precision)[0] for replicate in replicates]
    thresholds = np.concatenate([bins.edges[:1], bins.edges])
    thresholds[0] = bins.lowest
    return Calibration(
        made_by=method.made_by,
        margin=options.margin,
        retrieval=options.retrieval,
        goal=options.precision,
        threshold=_estimate(thresholds[chosen], thresholds[own]),
        precision=_estimate(curves.precision[chosen], [curve.precision[chosen] for curve in replicates]),
        recall=_estimate(curves.recall[chosen], [curve.recall[chosen] for curve in replicates]),
        f1=_estimate(curves.f1[chosen], [curve.f1[chosen] for curve in replicates]),
        true_pairs=_estimate(curves.true_pairs, [curve.true_pairs for curve in replicates]),
        known_pairs=method.known_pairs,
        seed=options.seed,
        score_knots=tuple(bins.centres.tolist()),
        probability_knots=tuple(isotonic(fit.probabilities, bins.weights).tolist()),
        curve=_curve(thresholds, curves),
        notes=method.notes + notes,
    )


def _chosen(replicates: Sequence[Curves], precision: float | None) -> tuple[int, tuple[str, ...]]:
    """Return the bin to cut at: best by the mean over the replicates, smoother than any single curve."""
    if precision is None:
        return int(np.mean([curves.f1 for curves in replicates], axis=0).argmax()), ()
    mean = np.mean([curves.precision for curves in replicates], axis=0)
    enough = np.flatnonzero(mean >= precision)
    if len(enough):
        return int(enough[0]), ()
    best = int(mean.argmax())
    note = (
        f"no threshold is expected to give precision {precision:g}; this one gives {mean[best]:.3f}, the most"
    )
    return best, (note,)


def _estimate(value: float, replicates: Sequence[float] | NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def _curve(thresholds: NDArray[np.float64], curves: Curves) -> tuple[CurvePoint, ...]:
    places = np.unique(np.linspace(0, len(thresholds) - 1, _CURVE_POINTS).astype(int))
    return tuple(
        CurvePoint(
            float(thresholds[place]),
            int(curves.pairs[place]),
            *(float(values[place]) for values in (curves.precision, curves.recall, curves.f1)),
        )
        for place in places
    )
