"""Translation ranking against values computed by hand and a plain double loop."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.losses import translation_ranking  # noqa: E402


def unit(*degrees: float) -> "torch.Tensor":
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def nothing_ignored(n: int) -> "torch.Tensor":
    return torch.zeros(n, n, dtype=torch.bool)


def test_two_pairs_give_the_value_computed_by_hand() -> None:
    # cos = [[1, 0], [0, 1]]; scale 2, margin 0.5: every row is softmax([2 * 0.5, 0]) at the gold column.
    loss = translation_ranking(unit(0, 90), unit(0, 90), nothing_ignored(2), scale=2.0, margin=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_vectors_need_not_be_unit() -> None:
    scaled = translation_ranking(unit(0, 90) * 7, unit(3, 80) * 0.1, nothing_ignored(2), scale=20, margin=0.3)
    plain = translation_ranking(unit(0, 90), unit(3, 80), nothing_ignored(2), scale=20, margin=0.3)
    assert scaled.item() == pytest.approx(plain.item(), abs=1e-5)


def test_the_margin_makes_the_same_vectors_cost_more() -> None:
    without = translation_ranking(unit(0, 50), unit(10, 70), nothing_ignored(2), scale=20, margin=0.0)
    with_margin = translation_ranking(unit(0, 50), unit(10, 70), nothing_ignored(2), scale=20, margin=0.3)
    assert with_margin > without + 0.5


def test_a_masked_translation_is_no_negative() -> None:
    x, y = unit(0, 0, 90), unit(0, 0, 90)  # rows 0 and 1 are the same sentence
    ignored = nothing_ignored(3)
    ignored[0, 1] = ignored[1, 0] = True
    masked = translation_ranking(x, y, ignored, scale=20, margin=0.3).item()
    plain = translation_ranking(x, y, nothing_ignored(3), scale=20, margin=0.3).item()
    assert masked < 0.01 < 1 < plain


def test_it_equals_a_double_loop_on_random_vectors() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(6, 8)), generator.normal(size=(6, 8))
    ignored = generator.random((6, 6)) < 0.2
    np.fill_diagonal(ignored, False)
    expected = np.mean([brute_force(x[:, :d], y[:, :d], ignored, 15.0, 0.2) for d in (8, 4)])
    loss = translation_ranking(
        torch.from_numpy(x),
        torch.from_numpy(y),
        torch.from_numpy(ignored),
        scale=15,
        margin=0.2,
        prefixes=[8, 4],
    )
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def brute_force(x: np.ndarray, y: np.ndarray, ignored: np.ndarray, scale: float, margin: float) -> float:
    n = len(x)
    cos = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])
    total = 0.0
    for i in range(n):
        gold = math.exp(scale * (cos[i, i] - margin))
        row = sum(math.exp(scale * cos[i, j]) for j in range(n) if j != i and not ignored[i, j])
        column = sum(math.exp(scale * cos[j, i]) for j in range(n) if j != i and not ignored[j, i])
        total -= math.log(gold / (gold + row)) + math.log(gold / (gold + column))
    return total / (2 * n)
