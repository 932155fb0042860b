from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError
from embedsvc.mining.extract import RETRIEVALS, Retrieval, extract_pairs, mined_pairs
from embedsvc.mining.margin import BACKWARD, FORWARD, CandidatePairs
from indexing import BothWays, Neighbours

Triple = tuple[float, int, int]


def candidates(*triples: Triple, direction: int = FORWARD) -> CandidatePairs:
    scores, sources, targets = zip(*triples, strict=True) if triples else ((), (), ())
    return CandidatePairs(
        np.array(scores, np.float32),
        np.array(sources, np.int64),
        np.array(targets, np.int64),
        np.array(scores, np.float32) / 2,
        np.full(len(triples), direction, np.int8),
    )


def backward_candidates(*triples: Triple) -> CandidatePairs:
    return candidates(*triples, direction=BACKWARD)


def triples(pairs: CandidatePairs) -> list[Triple]:
    return list(
        zip(pairs.scores.tolist(), pairs.source_rows.tolist(), pairs.target_rows.tolist(), strict=True)
    )


# Sources 0 and 1 both want target 0; target 1 wants source 0, target 2 nobody's first choice but 2.
CHOSEN = candidates((1.5, 0, 0), (1.25, 1, 0), (1.125, 2, 2))
CHOSEN_BACK = backward_candidates((1.5, 0, 0), (1.375, 0, 1), (1.125, 2, 2))


@pytest.mark.parametrize(
    ("retrieval", "expected"),
    [
        ("forward", [(1.5, 0, 0), (1.25, 1, 0), (1.125, 2, 2)]),
        ("backward", [(1.5, 0, 0), (1.375, 0, 1), (1.125, 2, 2)]),
        ("intersection", [(1.5, 0, 0), (1.125, 2, 2)]),
        ("max", [(1.5, 0, 0), (1.125, 2, 2)]),
        # Above the threshold of 0, two pairs of 1.25 + 1.375 are worth more than one of 1.5.
        ("optimal", [(1.375, 0, 1), (1.25, 1, 0), (1.125, 2, 2)]),
    ],
)
def test_strategies_by_hand(retrieval: Retrieval, expected: list[Triple]) -> None:
    assert triples(extract_pairs(CHOSEN, CHOSEN_BACK, retrieval, threshold=0)) == expected


def test_max_gives_a_text_its_partner_even_if_only_one_direction_chose_it() -> None:
    forward = candidates((1.5, 0, 0), (1.4, 1, 0))
    backward = backward_candidates((1.5, 0, 0), (1.25, 1, 1))
    assert triples(extract_pairs(forward, backward, "max", threshold=0)) == [(1.5, 0, 0), (1.25, 1, 1)]
    assert triples(extract_pairs(forward, backward, "intersection", threshold=0)) == [(1.5, 0, 0)]


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_threshold_applies_to_every_strategy_and_is_inclusive(retrieval: Retrieval) -> None:
    kept = extract_pairs(CHOSEN, CHOSEN_BACK, retrieval, threshold=1.5)
    assert triples(kept) == [(1.5, 0, 0)]
    assert triples(extract_pairs(CHOSEN, CHOSEN_BACK, retrieval, threshold=1.51)) == []


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_a_high_score_is_never_a_reason_to_drop_a_pair(retrieval: Retrieval) -> None:
    # stopes drops ratios above 1.25 by default: with an isotropic encoder nearly all true pairs.
    best = candidates((60.0, 0, 0)), backward_candidates((60.0, 0, 0))
    assert triples(extract_pairs(*best, retrieval, threshold=1.06)) == [(60.0, 0, 0)]


def test_equal_scores_stand_in_order_of_source_then_target_row() -> None:
    forward = candidates((1.0, 2, 0), (1.0, 1, 1), (1.0, 0, 0))
    backward = backward_candidates((1.0, 1, 0), (1.0, 1, 1))
    assert triples(extract_pairs(forward, backward, "forward", threshold=0)) == [
        (1, 0, 0),
        (1, 1, 1),
        (1, 2, 0),
    ]
    assert triples(extract_pairs(forward, backward, "max", threshold=0)) == [(1, 0, 0), (1, 1, 1)]


@st.composite
def both_directions(draw: st.DrawFn) -> tuple[CandidatePairs, CandidatePairs]:
    n, m = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    score = st.sampled_from([0.5, 1.0, 1.25, 1.5])  # few values: many ties
    table = [[draw(score) for _ in range(m)] for _ in range(n)]
    forward = [(i, draw(st.integers(0, m - 1))) for i in range(n)]
    backward = [(draw(st.integers(0, n - 1)), j) for j in range(m)]
    return tuple(  # type: ignore[return-value]
        candidates(*[(table[i][j], i, j) for i, j in draw(st.permutations(pairs))], direction=direction)
        for pairs, direction in ((forward, FORWARD), (backward, BACKWARD))
    )


@settings(max_examples=60, deadline=None)
@given(both_directions(), st.sampled_from([0.0, 1.25]))
def test_properties_of_the_strategies(
    directions: tuple[CandidatePairs, CandidatePairs], threshold: float
) -> None:
    forward, backward = directions
    found = {name: triples(extract_pairs(*directions, name, threshold=threshold)) for name in RETRIEVALS}
    for name in ("intersection", "max", "optimal"):
        assert len({i for _, i, _ in found[name]}) == len({j for _, _, j in found[name]}) == len(found[name])
    union = {pair for pair in triples(forward) + triples(backward) if pair[0] >= threshold}
    assert set(found["intersection"]) == set(found["forward"]) & set(found["backward"])
    assert set(found["max"]) <= union
    gains = {name: sum(score - threshold for score, _, _ in found[name]) for name in ("max", "optimal")}
    assert gains["optimal"] >= gains["max"] - 1e-9
    # Greedy is maximal: what was left out has a text in a pair that is at least as good.
    for score, i, j in union - set(found["max"]):
        assert any(kept >= score and (i == a or j == b) for kept, a, b in found["max"])
    # Candidates come in any order, pairs in one.
    for pairs in found.values():
        assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_no_candidates_give_no_pairs(retrieval: Retrieval) -> None:
    assert triples(extract_pairs(candidates(), backward_candidates(), retrieval, threshold=0)) == []


def test_unknown_retrieval_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="retrieval 'fwd' is unknown; choose forward, backward"):
        extract_pairs(CHOSEN, CHOSEN_BACK, "fwd", threshold=0)  # type: ignore[arg-type]


def test_optimal_takes_a_good_pair_rather_than_two_that_hardly_pass() -> None:
    # Over the threshold of 1.2: .3 alone, .05 + .175 together.
    assert triples(extract_pairs(CHOSEN, CHOSEN_BACK, "optimal", threshold=1.2)) == [(1.5, 0, 0)]


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_pairs_keep_their_cosine_and_say_who_chose_whom(retrieval: Retrieval) -> None:
    pairs = extract_pairs(CHOSEN, CHOSEN_BACK, retrieval, threshold=0)
    assert pairs.cosines.tolist() == [score / 2 for score in pairs.scores.tolist()]
    chosen = {(0, 0): 3, (1, 0): 1, (0, 1): 2, (2, 2): 3}
    for direction, i, j in zip(
        pairs.directions.tolist(), pairs.source_rows.tolist(), pairs.target_rows.tolist(), strict=True
    ):
        assert direction == chosen[i, j]


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_order_of_the_candidates_does_not_matter(retrieval: Retrieval) -> None:
    random = np.random.default_rng(0)
    cosines = random.integers(1, 5, (12, 10)).astype(np.float32) / 8
    forward = candidates(*[(float(cosines[i].max()), i, int(cosines[i].argmax())) for i in range(12)])
    backward = backward_candidates(
        *[(float(cosines[:, j].max()), int(cosines[:, j].argmax()), j) for j in range(10)]
    )
    expected = triples(extract_pairs(forward, backward, retrieval, threshold=0.2))
    for _ in range(5):
        shuffled = forward.take(random.permutation(12)), backward.take(random.permutation(10))
        assert triples(extract_pairs(*shuffled, retrieval, threshold=0.2)) == expected


# Pair (1, 1) is listed by both of its texts but the best of neither.
LISTS = BothWays(
    Neighbours(
        np.array([[0.9, 0.1], [0.88, 0.8], [0.95, 0.85]], np.float32), np.array([[0, 1], [0, 1], [2, 1]])
    ),
    Neighbours(
        np.array([[0.9, 0.88], [0.85, 0.8], [0.95, 0.1]], np.float32), np.array([[0, 1], [2, 1], [2, 1]])
    ),
)


def test_optimal_looks_at_all_candidates_the_others_at_the_best() -> None:
    pairs = {name: triples(mined_pairs(LISTS, "absolute", name)) for name in RETRIEVALS}
    assert [(i, j) for _, i, j in pairs["max"]] == [(2, 2), (0, 0)]
    assert [(i, j) for _, i, j in pairs["optimal"]] == [(2, 2), (0, 0), (1, 1)]
    assert [(i, j) for _, i, j in pairs["forward"]] == [(2, 2), (0, 0), (1, 0)]
    assert [(i, j) for _, i, j in pairs["backward"]] == [(2, 2), (0, 0), (2, 1)]


def test_optimal_has_no_pairs_below_neutral_however_low_the_threshold() -> None:
    lists = Neighbours(np.array([[0.5, -0.2], [-0.1, -0.3]], np.float32), np.array([[0, 1], [1, 0]]))
    both = BothWays(lists, lists)
    assert [(i, j) for _, i, j in triples(mined_pairs(both, "absolute", "max", threshold=-9))] == [
        (0, 0),
        (1, 1),
    ]
    assert [(i, j) for _, i, j in triples(mined_pairs(both, "absolute", "optimal", threshold=-9))] == [(0, 0)]
