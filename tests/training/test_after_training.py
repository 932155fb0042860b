from __future__ import annotations

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError
from training.affine import Affine
from training.language_means import LanguageComponents, LanguageMeans, common_subspace
from training.linear_map import agreement, fit_map
from training.whitening import principal_axes, whitening

RANDOM = np.random.default_rng(4)
VECTORS = RANDOM.normal(size=(400, 6)).astype(np.float32) @ RANDOM.normal(size=(6, 6)).astype(np.float32) + 3


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rotation(dimension: int) -> np.ndarray:
    return np.linalg.qr(RANDOM.normal(size=(dimension, dimension)))[0].astype(np.float32)


def test_centring_by_hand() -> None:
    vectors = np.array([[1, 0], [3, 0], [0, 2], [0, 4]], np.float32)
    languages = ["de", "de", "fr", "fr"]
    means = LanguageMeans.fit(vectors, languages)
    assert {code: mean.tolist() for code, mean in means.means.items()} == {"de": [2, 0], "fr": [0, 3]}
    assert means(vectors, languages).tolist() == [[-1, 0], [1, 0], [0, -1], [0, 1]]
    assert means(vectors[:1], ["fr"])[0].tolist() == pytest.approx([1 / 10**0.5, -3 / 10**0.5])
    with pytest.raises(InvalidInputError, match="language 'xx' was not fitted; known are de, fr"):
        means(vectors[:1], ["xx"])
    with pytest.raises(InvalidInputError, match="1 vectors and 2 languages"):
        means(vectors[:1], ["de", "fr"])


def test_the_strongest_direction_of_a_language_is_removed() -> None:
    vectors = np.array([[5, 1, 0], [5, -1, 0], [0, 1, 7], [1, 0, 7]], np.float32)
    languages = ["de", "de", "fr", "fr"]
    components = LanguageComponents.fit(vectors, languages)
    assert np.abs(components.directions["de"]).round(6).tolist() == [[1, 0, 0]]
    assert components(vectors, languages)[:2].round(6).tolist() == [[0, 1, 0], [0, -1, 0]]
    left = components(vectors, languages)[2:]
    assert np.abs(left @ components.directions["fr"].T).max() < 1e-6
    with pytest.raises(InvalidInputError, match="language 'de' has 2 vectors; 3 at least"):
        LanguageComponents.fit(vectors, languages, rank=3)


def test_one_translation_is_found_once_the_language_is_gone() -> None:
    """Meaning plus a shift for each language: the nearest is of the same language, until that is removed."""
    meaning = unit(RANDOM.normal(size=(50, 16)).astype(np.float32))
    shifts = 4 * unit(RANDOM.normal(size=(3, 16)).astype(np.float32))
    vectors = unit((meaning[None] + shifts[:, None]).reshape(-1, 16))
    languages = [code for code in ("de", "fr", "it") for _ in range(50)]
    fitted = LanguageMeans.fit(vectors, languages)

    def same_language(rows: np.ndarray) -> float:
        scores = rows @ rows.T
        np.fill_diagonal(scores, -np.inf)
        return float((scores.argmax(axis=1) // 50 == np.arange(150) // 50).mean())

    directions = common_subspace(fitted, 2)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-6)
    assert same_language(vectors) == 1
    assert same_language(fitted(vectors, languages)) < 0.1
    assert same_language(unit(vectors - vectors @ directions.T @ directions)) < 0.5
    with pytest.raises(InvalidInputError, match="rank = 3; the means of 3 languages differ in 1 to 2"):
        common_subspace(fitted, 3)


def test_whitened_vectors_have_mean_zero_and_covariance_one() -> None:
    for dimension in (None, 3):
        white = whitening(VECTORS, dimension)(VECTORS)
        np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(np.cov(white, rowvar=False, bias=True), np.eye(dimension or 6), atol=1e-3)


def test_whitening_all_dimensions_changes_least() -> None:
    weight = whitening(VECTORS).weight
    np.testing.assert_allclose(weight, weight.T, atol=1e-5)
    assert np.linalg.eigvalsh(weight.astype(np.float64)).min() > 0


def test_principal_axes_by_hand() -> None:
    """Points on a line through (1, 1) in direction (3, 4): one axis holds everything."""
    line = np.array([[1 - 3, 1 - 4], [1, 1], [1 + 3, 1 + 4]], np.float32)
    affine = principal_axes(line, 1)
    assert np.abs(affine(line))[:, 0].tolist() == pytest.approx([5, 0, 5], abs=1e-5)
    assert np.abs(affine.weight[:, 0]).tolist() == pytest.approx([0.6, 0.8])
    full = principal_axes(VECTORS)
    np.testing.assert_allclose(full.weight @ full.weight.T, np.eye(6), atol=1e-5)
    variances = full(VECTORS).var(axis=0)
    assert (np.diff(variances) < 0).all()
    assert variances.sum() == pytest.approx(VECTORS.var(axis=0).sum(), rel=1e-4)


def test_axes_that_the_vectors_do_not_have_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="4 vectors of 6 dimensions vary in 1 to 3 axes"):
        principal_axes(VECTORS[:4], 4)
    with pytest.raises(InvalidInputError, match="1 vectors have no variance"):
        whitening(VECTORS[:1])


def test_a_rotation_is_found_exactly_and_is_one() -> None:
    source, turn = unit(VECTORS), rotation(6)
    affine = fit_map(source, source @ turn)
    np.testing.assert_allclose(affine.weight, turn, atol=1e-5)
    noisy = fit_map(source, source @ turn + 0.3 * RANDOM.normal(size=source.shape).astype(np.float32))
    np.testing.assert_allclose(noisy.weight @ noisy.weight.T, np.eye(6), atol=1e-5)


def test_ridge_is_least_squares_pulled_to_zero() -> None:
    source, wide = unit(VECTORS), RANDOM.normal(size=(6, 9)).astype(np.float32)
    target = source @ wide
    np.testing.assert_allclose(fit_map(source, target, "ridge", ridge=1e-9).weight, wide, atol=1e-3)
    by_hand = fit_map(np.array([[1], [1]], np.float32), np.array([[3], [5]], np.float32), "ridge", ridge=1.0)
    assert by_hand.weight.tolist() == [[2.0]]  # 8 / (2 + 1 * 2)
    assert by_hand.bias is None
    with pytest.raises(InvalidInputError, match="2 and 1 vectors"):
        fit_map(source[:2], source[:1])


def test_agreement_by_hand() -> None:
    target = np.eye(4, dtype=np.float32)
    target[3] = unit(np.array([[1, 0.1, 0, 0]], np.float32))[0]
    mapped = target.copy()
    mapped[[1, 2]] = mapped[[2, 1]]
    found = agreement(mapped, target)
    assert (found.texts, found.found) == (4, 0.5)
    assert found.cosine == pytest.approx(0.5)
    assert agreement(target, target).neighbours == 1.0
    assert "on 4 texts held out: cosine 0.5000, 50.0% nearest" in str(found)


def test_an_affine_map_by_hand() -> None:
    affine = Affine(np.array([[1, 0], [2, 1]], np.float32), np.array([10, 0], np.float32))
    assert affine(np.array([[1, 1]], np.float32)).tolist() == [[13, 1]]
