"""How scores of true and false pairs mix: a two-part mixture, fitted to labelled and unlabelled scores.

The corpus gives pairs of unknown kind. Known true and false pairs say how much likelier a score is for a true
pair than for a false one; the share of true pairs in the corpus need not be that of the known ones. With
f1 / f0 = exp(a + b z), z the score (its logarithm for ratios), all of it is one semiparametric likelihood
(Anderson, Biometrika 1979), maximised by EM with a logistic regression as its M-step. Scores are counted in
bins, so the cost does not depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.margin import Margin

Counts = NDArray[np.float64]

_BINS = 200
_ROUNDS, _TOLERANCE = 400, 1e-5
_RIDGE = 0.01  # keeps the slope finite where true and false scores do not overlap
_FLAT = 1e-6  # next to nothing, so that there is always a solution
_FIRST_GUESS = (-4.0, 2.0)  # few true pairs, and a higher score is better


@dataclass(frozen=True, eq=False)
class ScoreBins:
    """Bins of the scores of a corpus; all arrays but ``edges`` (between the bins, ascending) are ``(bins,)``.

    ``centres`` are scores, ``feature`` the same as z; ``weights`` is how many of the scores are in each.
    """

    edges: NDArray[np.float64]
    centres: NDArray[np.float64]
    feature: NDArray[np.float64]
    weights: Counts
    lowest: float

    def __len__(self) -> int:
        return len(self.centres)

    def counts(self, scores: NDArray[np.floating]) -> Counts:
        """Return how many scores fall into each bin ``(bins,)``."""
        return np.bincount(self.of(scores), minlength=len(self)).astype(np.float64)

    def of(self, scores: NDArray[np.floating]) -> NDArray[np.intp]:
        """Return the bin of each score; one that is on an edge belongs above it."""
        bins: NDArray[np.intp] = np.searchsorted(self.edges, scores, side="right")
        return bins


def score_bins(scores: NDArray[np.floating], kind: Margin) -> ScoreBins:
    """Return bins that hold equally many scores each, finer at the top, where it matters.

    Raises InvalidInputError if there are no scores.
    """
    if not len(scores):
        raise InvalidInputError("the corpus has no pairs: there is nothing to calibrate")
    ordered = np.sort(scores.astype(np.float64))
    even, top = np.linspace(0, 1, _BINS + 1)[1:-1], 1 - np.geomspace(0.25, 1 / len(scores), _BINS)
    edges = np.unique(np.quantile(ordered, np.concatenate([even, np.maximum(top, 0)])))
    limits = np.concatenate([ordered[:1], edges, ordered[-1:]])
    centres = (limits[1:] + limits[:-1]) / 2
    weights = np.bincount(np.searchsorted(edges, ordered, side="right"), minlength=len(centres))
    feature = _feature(centres, np.quantile(ordered, [0.5, 0.9]), kind)
    return ScoreBins(edges, centres, feature, weights.astype(np.float64), float(ordered[0]))


def _feature(
    scores: NDArray[np.float64], median_and_ninth: NDArray[np.float64], kind: Margin
) -> NDArray[np.float64]:
    """Return z: 0 for the median score, 1 for the 90th percentile; for ratios in the logarithm."""
    if kind == "ratio":
        scores, median_and_ninth = (np.log(np.maximum(values, 0.1)) for values in (scores, median_and_ninth))
    median, ninth = median_and_ninth
    feature: NDArray[np.float64] = (scores - median) / max(ninth - median, 1e-6)
    return feature


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Counts per bin ``(bins,)``: pairs of the corpus, and pairs known to be true and to be false."""

    corpus: Counts
    true: Counts
    false: Counts


@dataclass(frozen=True, eq=False)
class Mixture:
    """The probability ``(bins,)`` that a pair of the corpus in a bin is true, and the coefficients a, b."""

    probabilities: NDArray[np.float64]
    coefficients: NDArray[np.float64]


def fit_mixture(bins: ScoreBins, counts: ScoreCounts, *, start: Mixture | None = None) -> Mixture:
    """Return the mixture that makes the counts likeliest; a similar one as ``start`` saves rounds."""
    design = np.stack([np.ones(len(bins)), bins.feature], axis=1)
    coefficients = np.array(_FIRST_GUESS) if start is None else start.coefficients
    for _ in range(_ROUNDS):
        p = logistic(design @ coefficients)
        true, false = counts.corpus * p, counts.corpus * (1 - p)
        updated = _newton_step(bins.feature, coefficients, true + counts.true, false + counts.false)
        # The regression sees the known pairs too; the odds of the corpus are those of its own.
        known_odds = _log_odds(true + counts.true, false + counts.false)
        updated[0] += _log_odds(true, false) - known_odds
        done = np.abs(updated - coefficients).max() < _TOLERANCE
        coefficients = updated
        if done:
            break
    return Mixture(logistic(design @ coefficients), coefficients)


def _log_odds(true: Counts, false: Counts) -> float:
    return float(np.log(max(true.sum(), 1e-9) / max(false.sum(), 1e-9)))


def _newton_step(
    feature: NDArray[np.float64], coefficients: NDArray[np.float64], ones: Counts, zeros: Counts
) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression on counts of ones and zeros, after a few steps."""
    found = coefficients.copy()
    weights = ones + zeros
    for _ in range(3):
        p = logistic(found[0] + found[1] * feature)
        missed, curved = ones - weights * p, weights * p * (1 - p)
        g0, g1 = missed.sum() - _FLAT * found[0], missed @ feature - _RIDGE * found[1]
        # The curvature is [[a, b], [b, c]]: solved by hand, for that takes a tenth of the time.
        a, b, c = curved.sum() + _FLAT, curved @ feature, curved * feature @ feature + _RIDGE
        step = np.array([c * g0 - b * g1, a * g1 - b * g0]) / (a * c - b * b)
        # A full step may leap to where p is 0 or 1.
        found = found + step / max(1.0, float(np.abs(step).max()))
    return found


def logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-value))."""
    odds: NDArray[np.float64] = np.exp(np.clip(values, -30, 30))
    return odds / (1 + odds)
