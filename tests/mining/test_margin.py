from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.margin import (
    BACKWARD,
    FORWARD,
    MARGINS,
    RATIO_FLOOR,
    Margin,
    all_candidates,
    best_candidates,
    candidate_margins,
    listed_candidates,
    margin_scores,
    neighbourhood_means,
)
from indexing import BothWays, Neighbours, nearest_both_ways, normalize_rows

# Cosines of three sources (rows) and three targets. With k = 2 the means are
# .70 .80 .45 for the sources and .75 .75 .30 for the targets.
COSINES = np.array([[0.8, 0.6, 0.2], [0.7, 0.9, 0.1], [0.3, 0.5, 0.4]], np.float32)


def both_ways(cosines: NDArray[np.float32], k: int) -> BothWays:
    return BothWays(neighbours(cosines, k), neighbours(cosines.T, k))


def neighbours(cosines: NDArray[np.float32], k: int) -> Neighbours:
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(cosines, rows, 1), rows)


@pytest.mark.parametrize(
    ("kind", "forward", "backward"),
    [
        ("ratio", [1.103448, 1.161290, 1.066667], [1.103448, 1.161290, 1.066667]),
        ("distance", [0.075, 0.125, 0.025], [0.075, 0.125, 0.025]),
        # By cosine alone the third source prefers the second target, a hub.
        ("absolute", [0.8, 0.9, 0.5], [0.8, 0.9, 0.4]),
    ],
)
def test_margins_by_hand(kind: Margin, forward: list[float], backward: list[float]) -> None:
    found_forward, found_backward = best_candidates(both_ways(COSINES, 2), kind)
    assert found_forward.scores == pytest.approx(forward, abs=1e-6)
    assert found_backward.scores == pytest.approx(backward, abs=1e-6)


def test_every_candidate_has_its_margin_by_hand() -> None:
    forward, backward = candidate_margins(both_ways(COSINES, 2), "ratio")
    assert forward == pytest.approx(
        np.array([[1.103448, 0.827586], [1.161290, 0.903226], [0.833333, 1.066667]]), abs=1e-6
    )
    assert backward == pytest.approx(
        np.array([[1.103448, 0.903226], [1.161290, 0.827586], [1.066667, 0.4]]), abs=1e-6
    )


def test_best_margin_is_taken_not_best_cosine() -> None:
    both = both_ways(COSINES, 2)
    assert both.x_to_y.rows[2, 0] == 1
    forward, _ = best_candidates(both, "ratio")
    assert forward.target_rows.tolist() == [0, 1, 2]


def laser_scores(
    x: NDArray[np.float32], y: NDArray[np.float32], both: BothWays, kind: Margin
) -> list[list[float]]:
    """LASER's score_candidates: a double loop over the candidates, each with its own dot products."""
    k_x, k_y = both.x_to_y.rows.shape[1], both.y_to_x.rows.shape[1]
    mean_x = [float(np.mean(sorted(y @ vector)[-k_x:])) for vector in x]
    mean_y = [float(np.mean(sorted(x @ vector)[-k_y:])) for vector in y]
    rows = []
    for i in range(len(x)):
        row = []
        for j in both.x_to_y.rows[i]:
            a, b = float(x[i] @ y[j]), (mean_x[i] + mean_y[j]) / 2
            floored = (max(mean_x[i], RATIO_FLOOR) + max(mean_y[j], RATIO_FLOOR)) / 2
            row.append({"ratio": a / floored, "distance": a - b, "absolute": a}[kind])
        rows.append(row)
    return rows


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.sampled_from(MARGINS), st.integers(0, 2**32)
)
def test_same_scores_as_a_double_loop(n: int, m: int, k: int, kind: Margin, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = (normalize_rows(random.standard_normal((size, 5)).astype(np.float32) + 0.7) for size in (n, m))
    both = nearest_both_ways(x, y, k)
    forward, _ = candidate_margins(both, kind)
    expected = laser_scores(x, y, both, kind)
    assert forward == pytest.approx(np.array(expected), rel=1e-3, abs=2e-4)
    best, _ = best_candidates(both, kind)
    assert best.scores == pytest.approx(np.max(expected, axis=1), rel=1e-3, abs=2e-4)


@pytest.mark.parametrize("kind", MARGINS)
def test_both_directions_give_a_pair_the_same_score(kind: Margin) -> None:
    random = np.random.default_rng(0)
    x, y = (normalize_rows(random.standard_normal((n, 6)).astype(np.float32)) for n in (9, 7))
    both = nearest_both_ways(x, y, 9)
    forward, backward = candidate_margins(both, kind)
    by_pair = {
        (i, j): forward[i, c] for i, row in enumerate(both.x_to_y.rows.tolist()) for c, j in enumerate(row)
    }
    for j, row in enumerate(both.y_to_x.rows.tolist()):
        for c, i in enumerate(row):
            assert backward[j, c] == by_pair[i, j]


def test_ratio_is_finite_and_keeps_the_order_where_means_are_not_positive() -> None:
    cosines = np.array([0.5, 0.1, 0.0, -0.1, -0.5], np.float32)
    for mean in (-0.3, 0.0, 1e-30):
        means = np.full(5, mean, np.float32)
        scores = margin_scores(cosines, means, means, "ratio")
        assert scores == pytest.approx(cosines / RATIO_FLOOR)


def test_ratio_does_not_rank_a_low_cosine_above_a_high_one_for_a_negative_mean() -> None:
    # One source, so every target's mean is its own cosine; unfloored, .15 would score 3.0 and 1.0 only 2.1.
    cosines = np.array([1.0, 0.15], np.float32)
    scores = margin_scores(cosines, np.full(2, -0.05, np.float32), cosines, "ratio")
    assert scores == pytest.approx([1.0 / 0.505, 0.15 / 0.08])
    assert scores[0] > scores[1]


def test_ratio_of_two_negative_numbers_is_not_a_good_pair() -> None:
    both = nearest_both_ways(np.array([[1, 0]], np.float32), np.array([[-1, 0]], np.float32), 4)
    forward, backward = best_candidates(both, "ratio")
    assert forward.scores.tolist() == backward.scores.tolist() == [-100.0]


def test_slots_without_a_neighbour_are_no_candidates_and_do_not_count() -> None:
    # -1 read as an unsigned number would be row 4,294,967,295 (stopes).
    missing = -np.inf
    x_to_y = Neighbours(
        np.array([[0.9, 0.5], [0.6, missing], [missing, missing]], np.float32),
        np.array([[0, 1], [1, -1], [-1, -1]]),
    )
    y_to_x = Neighbours(np.array([[0.9, missing], [0.6, 0.5]], np.float32), np.array([[0, -1], [1, 0]]))
    both = BothWays(x_to_y, y_to_x)
    assert neighbourhood_means(x_to_y) == pytest.approx([0.7, 0.6, 0.0])
    forward, _ = best_candidates(both, "distance")
    assert forward.source_rows.tolist() == [0, 1]
    assert forward.target_rows.tolist() == [0, 1]
    assert forward.scores == pytest.approx([0.9 - (0.7 + 0.9) / 2, 0.6 - (0.6 + 0.55) / 2])
    margins, _ = candidate_margins(both, "ratio")
    assert margins[1, 1] == margins[2, 0] == -np.inf
    assert not np.isnan(margins).any()


def test_unknown_margin_is_refused_by_name() -> None:
    with pytest.raises(
        InvalidInputError, match="margin 'cosine' is unknown; choose ratio, distance, absolute"
    ):
        best_candidates(both_ways(COSINES, 2), "cosine")  # type: ignore[arg-type]


def test_all_candidates_are_every_listed_pair_once_best_first_with_who_lists_it_by_hand() -> None:
    found = all_candidates(both_ways(COSINES, 2), "distance")
    columns = (found.scores, found.cosines, found.source_rows, found.target_rows, found.directions)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    # Means .70 .80 .45 and .75 .75 .30. Only the source lists pair (2, 1), only the target (0, 2).
    expected = [
        (0.125, 0.9, 1, 1, FORWARD | BACKWARD),
        (0.075, 0.8, 0, 0, FORWARD | BACKWARD),
        (0.025, 0.4, 2, 2, FORWARD | BACKWARD),
        (-0.075, 0.7, 1, 0, FORWARD | BACKWARD),
        (-0.1, 0.5, 2, 1, FORWARD),
        (-0.125, 0.6, 0, 1, FORWARD | BACKWARD),
        (-0.3, 0.2, 0, 2, BACKWARD),
    ]
    assert [row[2:] for row in rows] == [row[2:] for row in expected]
    assert np.array([row[:2] for row in rows]) == pytest.approx(
        np.array([row[:2] for row in expected]), abs=1e-6
    )


@pytest.mark.parametrize("kind", MARGINS)
def test_all_candidates_hold_the_best_ones_and_leave_out_what_is_too_low(kind: Margin) -> None:
    random = np.random.default_rng(3)
    x, y = (normalize_rows(random.standard_normal((n, 6)).astype(np.float32)) for n in (40, 30))
    both = nearest_both_ways(x, y, 4)
    everything = all_candidates(both, kind)
    scores = {
        (i, j): score
        for i, j, score in zip(
            everything.source_rows.tolist(),
            everything.target_rows.tolist(),
            everything.scores.tolist(),
            strict=True,
        )
    }
    assert len(scores) == len(everything)
    for best in best_candidates(both, kind):
        for i, j, score in zip(
            best.source_rows.tolist(), best.target_rows.tolist(), best.scores.tolist(), strict=True
        ):
            assert scores[i, j] == score
    low = float(np.median(everything.scores))
    forward, backward = listed_candidates(both, kind, at_least=low)
    kept = {
        pair
        for part in (forward, backward)
        for pair in zip(part.source_rows.tolist(), part.target_rows.tolist(), strict=True)
    }
    assert kept == {pair for pair, score in scores.items() if score >= low}


def test_lists_are_read_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    x, y = (normalize_rows(random.standard_normal((n, 6)).astype(np.float32)) for n in (25, 19))
    both = nearest_both_ways(x, y, 4)
    whole = best_candidates(both, "ratio")
    monkeypatch.setattr("embedsvc.mining.margin._CHUNK_ROWS", 7)
    for mine, theirs in zip(best_candidates(both, "ratio"), whole, strict=True):
        assert mine.source_rows.tolist() == theirs.source_rows.tolist()
        assert mine.target_rows.tolist() == theirs.target_rows.tolist()
        assert mine.scores.tolist() == theirs.scores.tolist()
