import numpy as np
import pytest

from indexing import IndexingError
from indexing.language_bias import (
    Judgements,
    average_precision,
    average_precision_by_language,
    found_shares,
    language_ndcg,
    language_preference,
    own_language_share,
)

# Rows 0 to 2 are German, 3 to 5 English. Both queries are answered by row 1 and row 4.
POOL = np.array(["de", "de", "de", "en", "en", "en"])
BOTH = Judgements([np.array([1, 4]), np.array([4, 1])], np.array(["de", "en"]), POOL)
FAIR = np.array([[1, 4, 0, 2, 3, 5], [4, 1, 3, 5, 0, 2]])
BIASED = np.array([[1, 0, 2, 4, 3, 5], [3, 4, 5, 0, 1, 2]])  # own language first, each in its own good order


def random_case(q=7, n=60, seed=0):
    random = np.random.default_rng(seed)
    languages = np.array(["a", "b", "c"])
    judged = Judgements(
        [random.choice(n, random.integers(1, 9), replace=False) for _ in range(q)],
        languages[random.integers(0, 3, q)],
        languages[random.integers(0, 3, n)],
    )
    return np.array([random.permutation(n) for _ in range(q)]), judged


def average_precision_one(order, relevant):
    """By the definition: precision at each relevant rank, summed, over the number of relevant rows."""
    order, relevant = order.tolist(), set(relevant.tolist())
    hits = [rank for rank, row in enumerate(order, 1) if row in relevant]
    return sum(number / rank for number, rank in enumerate(hits, 1)) / len(relevant)


def test_average_precision_by_hand():
    np.testing.assert_allclose(average_precision(FAIR, BOTH), [1, 1])
    np.testing.assert_allclose(average_precision(BIASED, BOTH), [(1 + 2 / 4) / 2, (1 / 2 + 2 / 5) / 2])


def test_a_relevant_row_that_is_not_ranked_adds_nothing():
    cut = np.array([[1, 0, -1], [-1, -1, -1]])
    np.testing.assert_allclose(average_precision(cut, BOTH), [1 / 2, 0])


def test_average_precision_in_one_language_forgets_the_others():
    figures = average_precision_by_language(BIASED, BOTH)
    np.testing.assert_allclose(figures["de"], [1, 1 / 2])
    np.testing.assert_allclose(figures["en"], [1, 1 / 2])
    assert list(figures) == ["de", "en"]


def test_average_precisions_agree_with_the_definition():
    ranked, judged = random_case()
    for query, (order, rows) in enumerate(zip(ranked, judged.relevant, strict=True)):
        assert average_precision(ranked, judged)[query] == pytest.approx(average_precision_one(order, rows))
        for language, figures in average_precision_by_language(ranked, judged).items():
            inside = judged.row_languages == language
            if inside[rows].any():
                expected = average_precision_one(order[inside[order]], rows[inside[rows]])
                assert figures[query] == pytest.approx(expected)
            else:
                assert np.isnan(figures[query])


def test_language_preference_by_hand():
    np.testing.assert_array_equal(language_preference(FAIR, BOTH), [1, 1])
    turned = np.array([[0, 4, 1, 2, 3, 5], [3, 5, 4, 1, 0, 2]])
    np.testing.assert_array_equal(language_preference(turned, BOTH), [0, 1])


def test_a_query_without_a_choice_of_language_says_nothing_about_preference():
    judged = Judgements(
        [np.array([1, 2]), np.array([1]), np.array([1, 4]), np.array([], dtype=int)],
        np.array(["de", "en", "de", "de"]),
        POOL,
    )
    ranked = np.array([[1, 2], [1, 2], [0, -1], [0, 1]])
    assert np.isnan(language_preference(ranked, judged)).all()


def test_a_ranking_blind_to_language_has_the_preference_of_chance():
    random = np.random.default_rng(0)
    pool = np.repeat(np.array(["a", "b", "c", "d"]), 10)
    queries = 2000
    answers = [np.array([0, 10, 20, 30]) + random.integers(0, 10, 4) for _ in range(queries)]
    judged = Judgements(answers, random.choice(np.unique(pool), queries), pool)
    ranked = np.array([random.permutation(40) for _ in range(queries)])
    assert language_preference(ranked, judged).mean() == pytest.approx(1 / 4, abs=0.04)
    assert own_language_share(ranked, judged).mean() == pytest.approx(1 / 4, abs=0.02)


def test_language_ndcg_by_hand():
    log = np.log2
    ideal = 2 + 1 / log(3)
    np.testing.assert_allclose(language_ndcg(FAIR, BOTH), [1, 1])
    other_first = np.array([[4, 1, 0, 2, 3, 5], [4, 0, 2, 1, 3, 5]])
    expected = [(1 + 2 / log(3)) / ideal, (2 + 1 / log(5)) / ideal]
    np.testing.assert_allclose(language_ndcg(other_first, BOTH), expected)
    np.testing.assert_allclose(language_ndcg(other_first, BOTH, k=1), [1 / 2, 1])
    np.testing.assert_allclose(language_ndcg(other_first[:, :1], BOTH, k=10), [1 / ideal, 2 / ideal])


def test_shares_by_hand():
    ranked = np.array([[1, 0, 4, -1], [0, 4, 2, 1]])
    np.testing.assert_allclose(own_language_share(ranked, BOTH), [2 / 3, 1 / 4])
    np.testing.assert_allclose(own_language_share(ranked, BOTH, k=2), [1, 1 / 2])
    shares = found_shares(ranked, BOTH)
    np.testing.assert_allclose(shares["de"], [2 / 3, 3 / 4])
    np.testing.assert_allclose(shares["en"], [1 / 3, 1 / 4])
    assert np.isnan(own_language_share(np.full((2, 3), -1), BOTH)).all()


@pytest.mark.parametrize(
    "figure", [average_precision, language_preference, language_ndcg, own_language_share]
)
def test_batches_of_queries_give_the_same_figures(figure):
    ranked, judged = random_case()
    parts = [np.array([4, 0, 2]), np.array([6]), np.array([5, 1, 3])]
    figures = np.concatenate([figure(ranked[part], judged.take(part)) for part in parts])
    np.testing.assert_array_equal(figures, figure(ranked, judged)[np.concatenate(parts)])


def test_what_does_not_fit_is_refused():
    with pytest.raises(IndexingError, match=r"relevant\[1\] holds rows 1 to 6; the pool has 6"):
        Judgements([np.array([1]), np.array([6, 1])], np.array(["de", "en"]), POOL)
    with pytest.raises(IndexingError, match=r"groups have shape \(1,\); expected \(2,\)"):
        Judgements(BOTH.relevant, np.array(["de"]), POOL)
    with pytest.raises(IndexingError, match="ranked holds rows 0 to 6; the pool has 6"):
        average_precision(np.array([[0, 6], [0, 1]]), BOTH)
    with pytest.raises(IndexingError, match="3 queries are ranked, 2 judged"):
        language_preference(np.zeros((3, 2), int), BOTH)
    with pytest.raises(IndexingError, match=r"float64 of shape \(2, 2\)"):
        own_language_share(np.zeros((2, 2)), BOTH)
    for figure in (language_ndcg, own_language_share, found_shares):
        with pytest.raises(IndexingError, match="k is 0; expected at least 1"):
            figure(FAIR, BOTH, k=0)
