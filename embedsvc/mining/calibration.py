"""What a calibration says: a threshold, a probability for every score, and how good the pairs above are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.extract import Retrieval
from embedsvc.mining.margin import Margin

MadeBy = Literal["development", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What is expected of the corpus at a threshold: how many pairs, and how good."""

    threshold: float
    pairs: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Calibration:
    """Threshold and probabilities for the scores of one corpus, encoder, margin and retrieval.

    ``made_by`` development: from known pairs; unlabelled: an estimate from the scores alone, often off.
    ``precision`` of the pairs at or above the threshold; ``recall`` counts also true pairs that no
    threshold finds; ``true_pairs`` is how many the corpus is thought to hold. ``goal`` is the wanted
    precision, None for the best F1. ``score_knots`` and ``probability_knots`` ascend together.
    """

    made_by: MadeBy
    margin: Margin
    retrieval: Retrieval
    goal: float | None
    threshold: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    true_pairs: Estimate
    known_pairs: int
    seed: int
    score_knots: tuple[float, ...]
    probability_knots: tuple[float, ...]
    curve: tuple[CurvePoint, ...]
    notes: tuple[str, ...] = ()

    def probabilities(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability that a pair with each of these scores is a translation."""
        found: NDArray[np.float64] = np.interp(scores, self.score_knots, self.probability_knots)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_json` wrote."""
        estimates = ("threshold", "precision", "recall", "f1", "true_pairs")
        lists = ("score_knots", "probability_knots", "notes")
        return cls(
            **values
            | {name: Estimate(**values[name]) for name in estimates}
            | {name: tuple(values[name]) for name in lists}
            | {"curve": tuple(CurvePoint(**point) for point in values["curve"])}
        )
