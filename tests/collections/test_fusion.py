from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.collections.fusion import Ranking, reciprocal_rank_fusion, score_fusion
from embedsvc.errors import InvalidInputError

DENSE: Ranking = ([7, 3, 5], [0.9, 0.8, 0.5])
LEXICAL: Ranking = ([3, 9], [12.0, 4.0])
FUSIONS = [reciprocal_rank_fusion, score_fusion]


@st.composite
def rankings(draw: st.DrawFn) -> list[tuple[list[int], list[float]]]:
    found = draw(st.lists(st.lists(st.integers(0, 20), unique=True, max_size=8), min_size=1, max_size=4))
    scores = st.floats(-1e6, 1e6)
    return [(rows, sorted((draw(scores) for _ in rows), reverse=True)) for rows in found]


def test_reciprocal_ranks_by_hand() -> None:
    rows, scores = reciprocal_rank_fusion([DENSE, LEXICAL])
    assert rows.tolist() == [3, 7, 9, 5]
    assert scores == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])


def test_k_and_weights_of_reciprocal_ranks_by_hand() -> None:
    rows, scores = reciprocal_rank_fusion([DENSE, LEXICAL], weights=[4, 1], k=1)
    assert rows.tolist() == [7, 3, 5, 9]
    assert scores == pytest.approx([4 / 2, 4 / 3 + 1 / 2, 4 / 4, 1 / 3])


def test_scores_are_scaled_and_averaged_by_hand() -> None:
    rows, scores = score_fusion([DENSE, LEXICAL])
    assert rows.tolist() == [3, 7, 5, 9]  # 5 and 9 are last in theirs: a tie
    assert scores == pytest.approx([(0.75 + 1) / 2, 1 / 2, 0, 0])


def test_weights_of_scores_by_hand() -> None:
    rows, scores = score_fusion([DENSE, LEXICAL], weights=[0.9, 0.1])
    assert rows.tolist() == [7, 3, 5, 9]
    assert scores == pytest.approx([0.9, 0.9 * 0.75 + 0.1, 0, 0])


def test_equal_scores_all_count_as_best() -> None:
    rows, scores = score_fusion([([4, 2], [0.3, 0.3]), ([2], [5.0])])
    assert rows.tolist() == [2, 4]
    assert scores == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("fuse", FUSIONS)
def test_ties_go_to_the_lower_row(fuse: object) -> None:
    rows, _ = fuse([([8], [1.0]), ([2], [1.0]), ([5], [1.0])])  # type: ignore[operator]
    assert rows.tolist() == [2, 5, 8]


@pytest.mark.parametrize("fuse", FUSIONS)
def test_no_rankings_or_empty_ones_give_nothing(fuse: object) -> None:
    for given_ in ([], [([], [])], [([], []), ([], [])]):
        rows, scores = fuse(given_)  # type: ignore[operator]
        assert rows.tolist() == []
        assert scores.tolist() == []


@pytest.mark.parametrize("fuse", FUSIONS)
@pytest.mark.parametrize(
    ("given_", "weights", "message"),
    [
        ([DENSE, ([1, 1], [2.0, 1.0])], None, r"rankings\[1\] has a row twice"),
        ([([1], [np.nan])], None, r"rankings\[0\] has a score that is not finite"),
        ([([1, 2], [1.0])], None, r"rows \(2,\) and scores \(1,\)"),
        ([DENSE, LEXICAL], [1.0], "1 weights for 2 rankings"),
        ([DENSE], [-1.0], "from 0"),
        ([DENSE, LEXICAL], [0.0, 0.0], "one above 0"),
    ],
)
def test_what_cannot_be_fused_is_refused(
    fuse: object, given_: list[Ranking], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fuse(given_, weights=weights)  # type: ignore[operator]


@settings(max_examples=40)
@given(rankings())
def test_the_order_of_the_rankings_does_not_matter(found: list[Ranking]) -> None:
    for fuse in FUSIONS:
        expected = fuse(found)
        for permuted in permutations(found):
            rows, scores = fuse(permuted)
            assert rows.tolist() == expected[0].tolist()
            assert scores.tolist() == expected[1].tolist()


@settings(max_examples=40)
@given(rankings())
def test_every_row_comes_once_and_best_first(found: list[Ranking]) -> None:
    for fuse in FUSIONS:
        rows, scores = fuse(found)
        assert sorted(rows.tolist()) == sorted({row for ranking in found for row in ranking[0]})  # type: ignore[union-attr]
        assert list(zip(-scores, rows, strict=True)) == sorted(zip(-scores, rows, strict=True))


@settings(max_examples=40)
@given(rankings(), st.data())
def test_a_row_that_moves_up_in_one_ranking_never_falls(found: list[Ranking], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(found) - 1))
    rows, scores = found[which]
    if len(rows) < 2:  # type: ignore[arg-type]
        return
    place = data.draw(st.integers(1, len(rows) - 1))  # type: ignore[arg-type]
    moved = list(rows)  # type: ignore[arg-type]
    moved[place - 1], moved[place] = moved[place], moved[place - 1]
    after = [*found[:which], (moved, scores), *found[which + 1 :]]
    for fuse in FUSIONS:
        before_place = fuse(found)[0].tolist().index(rows[place])  # type: ignore[index]
        assert fuse(after)[0].tolist().index(rows[place]) <= before_place  # type: ignore[index]


@settings(max_examples=40)
@given(rankings())
def test_fused_scores_lie_between_0_and_1(found: list[Ranking]) -> None:
    _, scores = score_fusion(found)
    assert ((scores >= 0) & (scores <= 1 + 1e-12)).all()
