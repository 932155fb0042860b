from __future__ import annotations

import numpy as np
import pytest

from embedsvc.mining.alignment.band import Band, band_around, band_cells, full_band
from embedsvc.mining.alignment.beads import bead_shapes
from embedsvc.mining.alignment.blocks import Blocks, block_sums, mean_blocks
from embedsvc.mining.alignment.coarse import search_band
from embedsvc.mining.alignment.model import (
    BeadScores,
    Lengths,
    Model,
    first_model,
    fitted_model,
    shape_log_probability,
)
from embedsvc.mining.alignment.scoring import Chance, band_scores

SHAPES = bead_shapes(3)


def side(n: int, seed: int, dimension: int = 24) -> Blocks:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, dimension)).astype(np.float32)
    lengths = generator.integers(5, 200, n).astype(np.float64)
    return Blocks(mean_blocks(rows, np.ones(n), 3), block_sums(lengths, 3))


@pytest.mark.parametrize("radius", [2, 9])
def test_scores_in_a_band_are_those_of_each_cell(radius: int) -> None:
    source, target = side(70, 0), side(90, 1)
    chance = Chance.between(source, target)
    band = band_around(np.array([[20.0, 22.0], [21.0, 60.0]]), 70, 90, radius)
    found = band_scores(source, target, chance, band, (0, band.rows), SHAPES)
    rows, columns = band_cells(band, 0, band.rows)
    for position, (a, b) in enumerate(SHAPES):
        for cell in range(0, band.cells, 7):
            i, j = int(rows[cell]) - 1, int(columns[cell]) - 1
            if i < 0 or j < 0:
                continue
            expected = source.vectors[a - 1, i] @ target.vectors[b - 1, j]
            expected -= chance.source[a - 1, i] + chance.target[b - 1, j]
            assert found[position, cell] == pytest.approx(expected, abs=1e-5)


def test_blocks_are_sums_of_consecutive_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]], np.float32)
    np.testing.assert_array_equal(
        block_sums(rows, 3)[:, :, 0] + 10 * block_sums(rows, 3)[:, :, 1],
        [[1, 20, 3, 40], [0, 21, 23, 43], [0, 0, 24, 63]],
    )
    vectors = mean_blocks(rows, [1, 3, 1, 1], 2)
    np.testing.assert_allclose(vectors[1, 1], np.array([1, 6]) / np.sqrt(37), atol=1e-6)
    np.testing.assert_array_equal(vectors[1, 0], [0, 0])


def test_the_score_is_a_log_likelihood_ratio_computed_by_hand() -> None:
    """Equal spreads: (mu / s^2) (x - mu / 2); lengths of the expected ratio: log of the spreads' ratio."""
    vectors = np.array([[[1.0, 0.0]]], np.float32)
    tilted = np.array([[[0.6, 0.8]]], np.float32)
    source, target = Blocks(vectors, np.array([[10.0]])), Blocks(tilted, np.array([[20.0]]))
    model = Model(0.5, 0.1, 0.1, Lengths(float(np.log(2)), 0.2, 1.0))
    scores = BeadScores(source, target, Chance.between(source, target), model, [(1, 1)])
    found = scores.of_rows(full_band(1, 1), 0, 2)[0, -1]
    assert found == pytest.approx(0.5 / 0.01 * (0.6 - 0.25) + np.log(1.0 / 0.2) + np.log(0.8), abs=1e-4)
    longer = Blocks(tilted, np.array([[40.0]]))
    worse = BeadScores(source, longer, Chance.between(source, longer), model, [(1, 1)])
    lost = np.log(2) ** 2 / 2 * (1 / 0.2**2 - 1)
    assert found - worse.of_rows(full_band(1, 1), 0, 2)[0, -1] == pytest.approx(
        min(lost, np.log(5) + 4), abs=1e-4
    )


def test_the_model_learns_mean_and_spread_from_the_clear_pairs() -> None:
    generator = np.random.default_rng(0)
    n, dimension = 400, 64
    rows = generator.standard_normal((n, dimension)).astype(np.float32)
    other = rows + generator.standard_normal((n, dimension)).astype(np.float32)
    lengths = generator.integers(20, 200, n).astype(np.float64)
    source = Blocks(mean_blocks(rows, np.ones(n), 1), lengths[None])
    ratios = np.exp(generator.normal(0.3, 0.1, n))
    target = Blocks(mean_blocks(other, np.ones(n), 1), (lengths * ratios)[None])
    chance = Chance.between(source, target)
    first = first_model(source, target, chance)
    assert first.chance_spread == pytest.approx(1 / np.sqrt(dimension), rel=0.1)
    model = fitted_model(first, source, target, chance, [(1, 1)] * n)
    cosines = np.einsum("ij,ij->i", source.vectors[0], target.vectors[0])
    assert model.mean == pytest.approx(cosines.mean(), abs=0.02)
    assert model.spread == pytest.approx(cosines.std(), abs=0.01)
    assert model.lengths is not None
    assert model.lengths.mean == pytest.approx(0.3, abs=0.03)
    assert model.lengths.spread == pytest.approx(0.1, abs=0.015)
    assert fitted_model(first, source, source, chance, [(1, 1)] * n) == first  # copies are no translations


def test_the_probabilities_of_the_shapes_come_near_one() -> None:
    total = sum(np.exp(shape_log_probability(shape)) for shape in bead_shapes(5))
    assert 0.95 < total < 1


def holds(band: Band, i: int, j: int) -> bool:
    return bool(band.low[i] <= j <= band.high[i])


def test_the_band_of_long_documents_holds_the_true_path_in_few_cells() -> None:
    """A thousand sentences, of the target every tenth missing and two hundred in a row."""
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((2000, 64)).astype(np.float32)
    kept = np.array([i for i in range(2000) if i % 10 and not 900 <= i < 1100])
    target = rows[kept] + 0.8 * generator.standard_normal((len(kept), 64)).astype(np.float32)
    sides = [mean_blocks(side, np.ones(len(side)), 1)[0] for side in (rows, target)]
    band = search_band(*sides, 5)
    assert band.cells < 40 * 2000
    on_path = [holds(band, int(i), j) for j, i in enumerate(kept)]
    assert np.mean(on_path) > 0.99
