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

from embedsvc.mining.margin import Margin

Counts = NDArray[np.float64]

_BINS = 200
_ROUNDS, _TOLERANCE = 400, 1e-5
_RIDGE = 0.01  # keeps the slope finite where true and false scores do not overlap
_FIRST_GUESS = (-4.0, 2.0)  # few true pairs, and a higher score is better


@dataclass(frozen=True, eq=False)
class ScoreBins:
    """Bins of scores: ``edges`` ascending between them, ``feature`` z of each ``(bins,)``."""

    edges: NDArray[np.float64]
    feature: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.feature)

    def counts(self, scores: NDArray[np.floating]) -> Counts:
        """Return how many scores fall into each bin ``(bins,)``."""
        return np.bincount(self.of(scores), minlength=len(self)).astype(np.float64)

    def of(self, scores: NDArray[np.floating]) -> NDArray[np.intp]:
        """Return the bin of each score."""
        return np.searchsorted(self.edges, scores, side="right")


def score_bins(scores: NDArray[np.floating], kind: Margin) -> ScoreBins:
    """Return bins that hold equally many scores each, finer at the top, where it matters."""
    ordered = np.sort(scores.astype(np.float64))
    shares = np.concatenate(
        [np.linspace(0, 1, _BINS + 1)[1:-1], 1 - np.geomspace(0.25, 1 / len(scores), _BINS)]
    )
    edges = np.unique(np.quantile(ordered, shares))
    centres = np.concatenate([ordered[:1], (edges[1:] + edges[:-1]) / 2, [(edges[-1] + ordered[-1]) / 2]])
    middle, high = np.quantile(ordered, [0.5, 0.9])
    if kind == "ratio":  # a ratio is a product of effects
        centres, middle, high = (np.log(np.maximum(value, 0.1)) for value in (centres, middle, high))
    return ScoreBins(edges, (centres - middle) / max(high - middle, 1e-6))


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
        p = _logistic(design @ coefficients)
        true, false = counts.corpus * p, counts.corpus * (1 - p)
        updated = _newton_step(design, coefficients, true + counts.true, false + counts.false)
        # The regression sees the known pairs too; the odds of the corpus are those of its own.
        known_odds = np.log((true + counts.true).sum() / (false + counts.false).sum())
        updated[0] += np.log(max(true.sum(), 1e-9) / max(false.sum(), 1e-9)) - known_odds
        done = np.abs(updated - coefficients).max() < _TOLERANCE
        coefficients = updated
        if done:
            break
    return Mixture(_logistic(design @ coefficients), coefficients)


def _newton_step(
    design: NDArray[np.float64], coefficients: NDArray[np.float64], ones: Counts, zeros: Counts
) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression on counts of ones and zeros, after a few steps."""
    found = coefficients.copy()
    penalty = np.array([1e-6, _RIDGE])
    weights = ones + zeros
    for _ in range(3):
        p = _logistic(design @ found)
        gradient = design.T @ (ones - weights * p) - penalty * found
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        found = found + np.linalg.solve(curvature, gradient)
    return found


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
