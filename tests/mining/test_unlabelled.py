from __future__ import annotations

import json

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.unlabelled import SPARE_NEIGHBOURS, calibrate_unlabelled
from indexing import BothWays, Neighbours
from tests.mining.spaces import space

OPTIONS = CalibrationOptions(replicates=10)
K = 4


@pytest.mark.parametrize(("noise", "common", "near"), [(1.0, 0.0, (1.1, 1.4)), (1.0, 3.0, (1.005, 1.015))])
def test_threshold_is_found_without_known_pairs_at_any_scale_of_margins(
    noise: float, common: float, near: tuple[float, float]
) -> None:
    made = space(1_200, 360, noise=noise, common=common)
    calibration = calibrate_unlabelled(made.neighbours(K + SPARE_NEIGHBOURS), K, OPTIONS)
    assert near[0] < calibration.threshold.value < near[1]
    pairs = mined_pairs(made.neighbours(K), "ratio", "max")
    hits = made.right(pairs)
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + made.partners)
    kept = int((pairs.scores >= calibration.threshold.value).sum())
    assert f1[kept - 1] > f1.max() - 0.12
    assert calibration.precision.value == pytest.approx(hits[:kept].mean(), abs=0.15)


def test_it_says_that_it_is_an_estimate_and_survives_json() -> None:
    calibration = calibrate_unlabelled(space(200, 60).neighbours(6), K, OPTIONS)
    assert (calibration.made_by, calibration.known_pairs) == ("unlabelled", 0)
    assert calibration.notes[0].startswith("estimated without known pairs")
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_same_seed_same_numbers() -> None:
    both = space(200, 60).neighbours(6)
    assert calibrate_unlabelled(both, K, OPTIONS) == calibrate_unlabelled(both, K, OPTIONS)


@pytest.mark.parametrize("sentences", [1, 2, 5])
def test_tiny_corpora_give_some_finite_threshold(sentences: int) -> None:
    calibration = calibrate_unlabelled(space(sentences, 1).neighbours(6), K, OPTIONS)
    assert np.isfinite(calibration.threshold.value)
    assert (
        (np.array(calibration.probability_knots) >= 0) & (np.array(calibration.probability_knots) <= 1)
    ).all()


def test_a_corpus_without_pairs_is_refused() -> None:
    nothing = Neighbours(np.full((3, 2), -np.inf, np.float32), np.full((3, 2), -1))
    with pytest.raises(InvalidInputError, match="the corpus has no pairs"):
        calibrate_unlabelled(BothWays(nothing, nothing), 1, OPTIONS)
