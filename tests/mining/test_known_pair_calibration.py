from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibrate import calibrate
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions
from embedsvc.mining.extract import RETRIEVALS, Retrieval, mined_pairs
from embedsvc.mining.plants import plan_plants
from tests.mining.spaces import Space, space

OPTIONS = CalibrationOptions(replicates=20)
PARTNERS = 300


def f1_curve(made: Space, hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    curve: NDArray[np.float64] = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + made.partners)
    return curve


def truth(made: Space, calibration: Calibration) -> tuple[float, float, float]:
    """Precision and F1 at the threshold, and the best F1 that any threshold gives."""
    pairs = mined_pairs(made.neighbours(), calibration.margin, calibration.retrieval)
    hits = made.right(pairs)
    curve = f1_curve(made, hits)
    kept = int((pairs.scores >= calibration.threshold.value).sum())
    return float(hits[:kept].mean()), float(curve[kept - 1]), float(curve.max())


@pytest.mark.parametrize(("noise", "common"), [(1.0, 0.0), (1.6, 1.5), (1.6, 3.0)])
def test_threshold_is_near_the_oracle_and_estimates_near_the_truth_at_any_scale_of_margins(
    noise: float, common: float
) -> None:
    made = space(1_200, PARTNERS, noise=noise, common=common)
    calibration = calibrate(*made.planted(), OPTIONS)
    precision, f1, best = truth(made, calibration)
    assert f1 > best - 0.03
    assert calibration.precision.value == pytest.approx(precision, abs=0.07)
    assert calibration.f1.value == pytest.approx(f1, abs=0.07)
    assert calibration.true_pairs.value == pytest.approx(PARTNERS, rel=0.2)
    assert (calibration.threshold.value < 1.02) == (common == 3.0)


def test_estimates_are_those_of_the_corpus_not_of_the_known_pairs() -> None:
    # Of the known pairs all have a partner, of the sentences one in twenty.
    made = space(1_200, 60, noise=1.3)
    calibration = calibrate(*made.planted(), OPTIONS)
    assert calibration.true_pairs.value == pytest.approx(60, rel=0.35)
    pairs = mined_pairs(made.neighbours(), "ratio", "max")
    expected = calibration.probabilities(pairs.scores).sum()
    assert expected == pytest.approx(made.right(pairs).sum(), rel=0.35)


def test_probability_is_the_share_of_true_pairs_among_pairs_of_that_score() -> None:
    made = space(2_000, 600, noise=1.6)
    calibration = calibrate(*made.planted(), OPTIONS)
    pairs = mined_pairs(made.neighbours(), "ratio", "max")
    probabilities, hits = calibration.probabilities(pairs.scores), made.right(pairs)
    assert (np.diff(probabilities) <= 1e-12).all()  # best first
    for low, high in ((0, 0.2), (0.2, 0.7), (0.7, 1.01)):
        chosen = (probabilities >= low) & (probabilities < high)
        assert chosen.sum() > 50
        assert hits[chosen].mean() == pytest.approx(probabilities[chosen].mean(), abs=0.12)


@pytest.mark.parametrize("wanted", [0.6, 0.9])
def test_wanted_precision_is_kept(wanted: float) -> None:
    made = space(1_200, PARTNERS, noise=1.8)
    calibration = calibrate(*made.planted(), replace(OPTIONS, precision=wanted))
    assert calibration.goal == wanted
    assert truth(made, calibration)[0] == pytest.approx(wanted, abs=0.08)


def test_precision_out_of_reach_is_said() -> None:
    made = space(300, 60, noise=3.0, known=100)
    calibration = calibrate(*made.planted(), replace(OPTIONS, precision=0.99999))
    assert "no threshold is expected to give precision 0.99999" in calibration.notes[0]


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_every_retrieval_is_calibrated_for_itself(retrieval: Retrieval) -> None:
    made = space(600, 150, noise=1.3)
    calibration = calibrate(*made.planted(), replace(OPTIONS, retrieval=retrieval, replicates=5))
    precision, f1, best = truth(made, calibration)
    assert f1 > best - 0.08
    assert calibration.precision.value == pytest.approx(precision, abs=0.12)


def test_same_seed_same_numbers_and_another_seed_other_intervals() -> None:
    parts = space(300, 80, known=60).planted()
    first = calibrate(*parts, OPTIONS)
    assert calibrate(*parts, OPTIONS) == first
    other = calibrate(*parts, replace(OPTIONS, seed=1))
    assert other.precision.low != first.precision.low
    assert other.true_pairs.value == first.true_pairs.value


def test_more_known_pairs_make_narrower_intervals() -> None:
    def width(known: int) -> float:
        parts = space(400, 100, noise=1.6, known=known).planted()
        found = calibrate(*parts, replace(OPTIONS, replicates=60)).recall
        return found.high - found.low

    assert width(300) < width(30)


def test_known_pairs_that_stand_in_the_corpus_are_used_in_place() -> None:
    made = space(800, 400, noise=1.3, known=1)
    parts, _ = made.planted()
    names = [(f"source {row}", f"target {row}") for row in range(100)]
    rows = tuple({pair[side]: row for row, pair in enumerate(names)} for side in (0, 1))
    plants = plan_plants(names, (rows[0].get, rows[1].get), (800, 800))
    assert plants.source_texts == plants.target_texts == []
    calibration = calibrate(parts, plants, OPTIONS)
    precision, f1, best = truth(made, calibration)
    assert f1 > best - 0.05
    assert calibration.precision.value == pytest.approx(precision, abs=0.1)


def test_json_round_trip() -> None:
    calibration = calibrate(*space(200, 50, known=40).planted(), OPTIONS)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_too_few_known_pairs_are_refused_with_their_number() -> None:
    with pytest.raises(InvalidInputError, match=r"19 development pairs can be used; .* at least 20"):
        calibrate(*space(60, 20, known=19).planted(), OPTIONS)


def test_known_pairs_of_which_none_is_found_are_refused() -> None:
    made = space(200, 50, known=30)
    strangers = replace(made, known_y=made.known_y[::-1].copy())
    with pytest.raises(InvalidInputError, match=r"none of the 30 development pairs is found .* encoder"):
        calibrate(*strangers.planted(), OPTIONS)


def test_it_is_said_where_false_pairs_are_hardly_known() -> None:
    """In a small corpus of true pairs a text without its partner finds no other that agrees."""
    small, large = (space(n, n - 5, noise=0.3, common=0.0) for n in (60, 600))
    options = replace(OPTIONS, retrieval="intersection", replicates=5)  # no interval is looked at
    assert "how false pairs score" in " ".join(calibrate(*small.planted(), options).notes)
    assert calibrate(*large.planted(), replace(options, retrieval="forward")).notes == ()
