"""Figures of items against scipy and hand-computed cases, and what resampling makes of them."""

from types import ModuleType

import numpy as np
import pytest

from training.evaluation.items import Items, mean_items, mean_known
from training.evaluation.resampling import interval, paired_difference, resampled


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    return pytest.importorskip("scipy.stats")


def scored(seed: int, n: int = 60) -> np.ndarray:
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 6, n)  # many ties, as people's scores have
    return np.column_stack([np.round(gold + generator.normal(0, 2, n), 1), gold]).astype(float)


def test_correlations_equal_those_of_scipy_with_ties(stats: ModuleType) -> None:
    values = scored(1)
    assert Items(values, "spearman").figure() == pytest.approx(100 * stats.spearmanr(*values.T).statistic)
    assert Items(values, "pearson").figure() == pytest.approx(100 * stats.pearsonr(*values.T).statistic)


def test_a_resample_is_the_figure_of_the_items_repeated(stats: ModuleType) -> None:
    values = scored(2, 8)
    counts = np.array([[2, 0, 1, 1, 0, 3, 0, 1]])
    repeated = np.repeat(values, counts[0], axis=0)
    expected = 100 * stats.spearmanr(*repeated.T).statistic
    assert Items(values, "spearman").figures(counts) == pytest.approx([expected])
    assert Items(values).figures(counts) == pytest.approx([100 * repeated[:, 0].sum() / repeated[:, 1].sum()])


def test_a_ratio_of_sums_is_an_f1_and_unknown_scores_do_not_count() -> None:
    # two right of three found, four to find: F1 = 2 * 2 / (3 + 4)
    assert Items(np.array([[2, 2], [2, 2], [0, 1], [0, 1], [0, 1.0]])).figure() == pytest.approx(400 / 7)
    assert mean_items(np.array([1, np.nan, 0, 1])).figure() == pytest.approx(200 / 3)
    assert np.isnan(mean_items(np.array([np.nan])).figure())
    assert mean_known(np.array([[1, np.nan], [3, np.nan]])).tolist()[0] == 2


def test_constant_cosines_correlate_with_nothing() -> None:
    assert np.isnan(Items(np.array([[1, 1], [1, 2], [1, 3.0]]), "spearman").figure())


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(3).random(400) < 0.3
    found = resampled({"row": {"x": mean_items(scores)}}, aligned=False)["row"]["x"]
    low, high = interval(found)
    error = 196 * scores.std() / 20
    assert low == pytest.approx(100 * scores.mean() - error, abs=0.5)
    assert high == pytest.approx(100 * scores.mean() + error, abs=0.5)


def test_aligned_rows_are_resampled_alike_and_others_are_not() -> None:
    scores = np.random.default_rng(4).random(50)
    rows = {name: {"x": mean_items(scores)} for name in ("de", "fr")}
    alike, apart = resampled(rows, aligned=True), resampled(rows, aligned=False)
    assert (alike["de"]["x"] == alike["fr"]["x"]).all()
    assert not np.allclose(apart["de"]["x"], apart["fr"]["x"])


@pytest.mark.parametrize("statistic", ["ratio", "pearson", "spearman"])
def test_swapping_all_or_no_items_exchanges_the_models(statistic: str) -> None:
    a, b = scored(5), scored(6)
    b[:, 1] = a[:, 1]
    first, second = Items(a, statistic), Items(b, statistic)  # type: ignore[arg-type]
    swaps = np.array([np.zeros(60, bool), np.ones(60, bool)])
    difference = first.figure() - second.figure()
    assert first.null_differences(second, swaps) == pytest.approx([difference, -difference])


def test_the_permutation_test_agrees_with_scipy_and_paired_beats_unpaired(stats: ModuleType) -> None:
    generator = np.random.default_rng(7)
    hard = generator.random(300)
    a, b = hard < 0.6, hard < 0.56  # b is right only where a is: 4 % apart, always the same way
    found = paired_difference({"x": mean_items(a)}, {"x": mean_items(b)}, aligned=False)
    expected = stats.permutation_test(
        (a.astype(float), b.astype(float)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=2000,
        rng=np.random.default_rng(0),
    ).pvalue
    assert found.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert found.p == pytest.approx(expected, abs=0.01)
    assert found.low > 0
    alike = paired_difference({"x": mean_items(a)}, {"x": mean_items(a)}, aligned=False)
    assert (alike.value, alike.low, alike.high, alike.p) == (0, 0, 0, 1)


def test_other_items_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="not of the same tests"):
        paired_difference({"x": mean_items(np.ones(3))}, {"x": mean_items(np.ones(4))}, aligned=False)
