from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.mixture import ScoreCounts, fit_mixture, score_bins


def test_bins_hold_every_score_once_and_their_lower_edge() -> None:
    scores = np.array([1.0, 1.0, 1.1, 1.2, 1.3, 2.0], np.float32)
    bins = score_bins(scores, "ratio")
    assert bins.counts(scores).sum() == 6
    assert bins.of(bins.edges).tolist() == list(range(1, len(bins)))
    assert (np.diff(bins.feature) > 0).all()
    assert bins.lowest == 1.0


def test_feature_of_a_ratio_is_its_logarithm_and_of_a_distance_the_score() -> None:
    scores = np.arange(100, 1101) / 100
    # Median 6, 90th percentile 10: z is 0 and 1 there, and -1 at 2 (distance) or 6 / (10 / 6) = 3.6 (ratio).
    for kind, at_minus_one in (("distance", 2.0), ("ratio", 3.6)):
        bins = score_bins(scores, kind)  # type: ignore[arg-type]
        found = np.interp([at_minus_one, 6.0, 10.0], bins.centres, bins.feature)
        assert found == pytest.approx([-1, 0, 1], abs=0.01)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_share_of_true_pairs_is_found_whatever_that_of_the_known_ones(share: float) -> None:
    random = np.random.default_rng(1)

    def scores(true: int, false: int) -> NDArray[np.float64]:
        return np.concatenate([random.normal(0.3, 0.1, true), random.normal(0.1, 0.1, false)])

    corpus = scores(int(20_000 * share), int(20_000 * (1 - share)))
    bins = score_bins(corpus, "distance")
    known = ScoreCounts(bins.counts(corpus), bins.counts(scores(2_000, 0)), bins.counts(scores(0, 500)))
    mixture = fit_mixture(bins, known)
    found = float((known.corpus * mixture.probabilities).sum() / len(corpus))
    assert found == pytest.approx(share, rel=0.15, abs=0.01)
    # Two normal distributions of one width: the log odds are linear in the score.
    odds = share / (1 - share) * np.exp((bins.centres - 0.2) * 0.2 / 0.1**2)
    assert mixture.probabilities == pytest.approx(odds / (1 + odds), abs=0.12)


def test_no_scores_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="the corpus has no pairs"):
        score_bins(np.empty(0), "ratio")


def test_scores_that_tell_true_from_false_exactly_do_not_throw_the_fit_off() -> None:
    corpus = np.concatenate([np.linspace(1.0, 1.1, 300), np.linspace(1.9, 2.0, 100)])
    bins = score_bins(corpus, "ratio")
    true, false = bins.counts(np.full(300, 1.95)), bins.counts(np.full(300, 1.05))
    mixture = fit_mixture(bins, ScoreCounts(bins.counts(corpus), true, false))
    assert (bins.counts(corpus) * mixture.probabilities).sum() == pytest.approx(100, abs=2)


@pytest.mark.parametrize("known", ["true", "false", "none"])
def test_probabilities_are_numbers_where_hardly_anything_is_known(known: str) -> None:
    bins = score_bins(np.array([1.2]), "ratio")
    one, nothing = np.ones(len(bins)), np.zeros(len(bins))
    counts = ScoreCounts(
        one if known == "none" else nothing,
        one if known == "true" else nothing,
        one if known == "false" else nothing,
    )
    mixture = fit_mixture(bins, counts)
    assert (mixture.probabilities >= 0).all()
    assert (mixture.probabilities <= 1).all()
