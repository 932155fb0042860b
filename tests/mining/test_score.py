from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedsvc import score_pairs
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.margin import RATIO_FLOOR
from indexing import normalize_rows

GERMAN = ["Die Katze schläft im Haus.", "Heute regnet es.", "Musik ist wichtig für Kinder.", "Guten Morgen!"]
ENGLISH = ["The cat sleeps in the house.", "It is raining today.", "Music is important for children.", "Bye!"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def unit_rows(n: int, seed: int, dimension: int = 8) -> NDArray[np.float32]:
    draw = np.random.default_rng(seed)
    return normalize_rows(draw.normal(size=(n, dimension)).astype(np.float32))


def brute_force(
    x: NDArray[np.float32], y: NDArray[np.float32], pairs: list[tuple[int, int]], k: int
) -> NDArray[np.float64]:
    """The ratio of the pairs (row of x, row of y) of distinct vectors, by the published formula."""
    cosines = x.astype(np.float64) @ y.T.astype(np.float64)
    mean_x = np.maximum(np.sort(cosines, axis=1)[:, ::-1][:, :k].mean(axis=1), RATIO_FLOOR)
    mean_y = np.maximum(np.sort(cosines, axis=0)[::-1][:k].mean(axis=0), RATIO_FLOOR)
    return np.array([cosines[i, j] / ((mean_x[i] + mean_y[j]) / 2) for i, j in pairs])


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=20),
    k=st.integers(1, 9),
)
def test_every_pair_has_its_margin_among_the_distinct_texts(pairs: list[tuple[int, int]], k: int) -> None:
    x, y = unit_rows(7, 1), unit_rows(6, 2)
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    found = score_pairs(
        [f"s {i}" for i in left],
        [f"t {j}" for j in right],
        k=k,
        source_vectors=x[left],
        target_vectors=y[right],
    )
    rows, columns = sorted(set(left)), sorted(set(right))
    numbered = [(rows.index(i), columns.index(j)) for i, j in pairs]
    np.testing.assert_allclose(found.scores, brute_force(x[rows], y[columns], numbered, k), rtol=2e-4)
    np.testing.assert_allclose(found.cosines, (x[left] * y[right]).sum(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("margin", "expected"), [("ratio", 0.9 / 0.75), ("distance", 0.15), ("absolute", 0.9)]
)
def test_the_three_margins_by_hand(margin: str, expected: float) -> None:
    """Cosines .9 and .6 of the first source, .9 and .6 of the first target: both means are .75."""
    x = np.array([[1, 0, 0], [0.6 / 0.9, 0, 0.745356]], np.float32)
    y = np.array([[0.9, 0.435890, 0], [0.6, 0.8, 0]], np.float32)
    found = score_pairs(["a", "b"], ["c", "d"], margin=margin, k=2, source_vectors=x, target_vectors=y)  # type: ignore[arg-type]
    assert found.scores[0] == pytest.approx(expected, abs=1e-5)
    assert found.cosines[0] == pytest.approx(0.9, abs=1e-6)


def test_copies_neither_shift_nor_change_any_score(encoder: Encoder) -> None:
    """LASER's `--mode score` moved every pair after the first repeated line, and copies made a ratio 1."""
    once = score_pairs(GERMAN, ENGLISH, encoder=encoder)
    order = [0, 0, 1, 0, 2, 1, 3, 0, 0, 0, 0]
    again = score_pairs([GERMAN[i] for i in order], [ENGLISH[i] for i in order], encoder=encoder)
    np.testing.assert_array_equal(again.scores, once.scores[order])
    np.testing.assert_array_equal(again.cosines, once.cosines[order])
    assert len(set(once.scores.tolist())) == 4
    assert once.scores[0] > 1.5


def test_texts_that_differ_in_whitespace_only_are_one(encoder: Encoder) -> None:
    plain = score_pairs(GERMAN, ENGLISH, encoder=encoder)
    spaced = score_pairs([*GERMAN, "  Heute  regnet\u00a0es. "], [*ENGLISH, ENGLISH[1]], encoder=encoder)
    np.testing.assert_array_equal(spaced.scores, plain.scores[[0, 1, 2, 3, 1]])


def test_a_text_may_have_several_partners(encoder: Encoder) -> None:
    found = score_pairs(
        [GERMAN[0], GERMAN[0], *GERMAN[1:]], [ENGLISH[1], ENGLISH[0], *ENGLISH[1:]], encoder=encoder
    )
    alone = score_pairs(GERMAN, ENGLISH, encoder=encoder)
    assert found.scores[1] == pytest.approx(alone.scores[0])
    assert found.scores[0] < found.scores[1] / 3


def test_a_side_without_a_known_text_has_no_score_and_is_no_neighbour(encoder: Encoder) -> None:
    plain = score_pairs(GERMAN, ENGLISH, encoder=encoder)
    found = score_pairs(
        ["", *GERMAN, "x", " \n"], ["x", *ENGLISH, "", "\u3000"], target_pool=["\t"], encoder=encoder
    )
    assert np.isnan(found.scores[[0, 5, 6]]).all()
    assert np.isnan(found.cosines[[0, 5, 6]]).all()
    assert np.isfinite(found.scores[1:5]).all()
    zero = np.vstack([np.zeros((1, 8), np.float32), unit_rows(3, 3)])
    some = score_pairs(list("abcd"), list("abcd"), source_vectors=zero, target_vectors=unit_rows(4, 4))
    assert np.isnan(some.scores).tolist() == [True, False, False, False]
    assert len(plain) == 4


def test_a_pool_gives_neighbours_to_few_pairs(encoder: Encoder) -> None:
    assert score_pairs(GERMAN[:1], ENGLISH[:1], encoder=encoder).scores[0] == pytest.approx(1)
    found = score_pairs(GERMAN[:1], ENGLISH[:1], source_pool=GERMAN, target_pool=ENGLISH, encoder=encoder)
    np.testing.assert_allclose(
        found.scores[0], score_pairs(GERMAN, ENGLISH, encoder=encoder).scores[0], rtol=1e-6
    )


def test_given_vectors_are_those_of_the_encoder(encoder: Encoder) -> None:
    found = score_pairs(
        GERMAN,
        ENGLISH,
        source_vectors=encoder.encode(GERMAN, dimensions=64),
        target_vectors=encoder.encode(ENGLISH, dimensions=64),
    )
    np.testing.assert_allclose(
        found.scores, score_pairs(GERMAN, ENGLISH, dimensions=64, encoder=encoder).scores, rtol=1e-6
    )


def test_nothing_is_scored_as_nothing(encoder: Encoder) -> None:
    assert len(score_pairs([], [], encoder=encoder)) == 0
    assert np.isnan(score_pairs([""], ["a"], encoder=encoder).scores).all()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (["a"], {}, r"source has 1 texts, target 2; a pair is the two at the same place"),
        ("ab", {}, "source must be a list of texts, not one text"),
        (["a", 5], {}, r"source\[1\] is int, not a text"),
        (["a", "\ud800"], {}, r"source\[1\] holds a lone surrogate"),
        (["a", "b"], {"margin": "cosine"}, "margin 'cosine' is unknown; choose ratio, distance, absolute"),
        (["a", "b"], {"k": 0}, "k = 0; it must be at least 1"),
        (["a", "b"], {"target_pool": ["a", None]}, r"target_pool\[1\] is NoneType, not a text"),
        (
            ["a", "b"],
            {"source_vectors": unit_rows(3, 1)},
            r"source_vectors have shape \(3, 8\); expected \(2",
        ),
        (
            ["a", "b"],
            {"source_vectors": unit_rows(2, 1) * 2},
            r"source_vectors\[0\] has length 2; rows must have",
        ),
        (
            ["a", "b"],
            {"source_vectors": unit_rows(2, 1), "source_pool": ["c"]},
            "have 8 dimensions, the pool's 384",
        ),
    ],
)
def test_bad_arguments_are_named(source: list[str], options: dict[str, object], message: str) -> None:
    vectors = {} if "source_pool" in options else {"target_vectors": unit_rows(2, 2)}
    with pytest.raises(InvalidInputError, match=message):
        score_pairs(source, ["c", "d"], **{**vectors, **options})  # type: ignore[arg-type]


def test_vectors_of_two_widths_are_refused() -> None:
    with pytest.raises(DimensionMismatchError, match="source vectors have 8 dimensions, target vectors 4"):
        score_pairs(["a"], ["b"], source_vectors=unit_rows(1, 1), target_vectors=unit_rows(1, 2, 4))
