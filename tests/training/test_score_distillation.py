"""Score distillation by hand."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.loss_config import ScoreDistillationConfig  # noqa: E402
from training.losses import LOSSES, EmbeddedPairs  # noqa: E402
from training.losses.pairs import ScoredPassages  # noqa: E402


def unit(*degrees: float) -> "torch.Tensor":
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def lists(query: "torch.Tensor", passages: ScoredPassages) -> EmbeddedPairs:
    return EmbeddedPairs(query, query, torch.eye(len(query), dtype=torch.int8), passages=passages)


def loss(pairs: EmbeddedPairs, **options: float) -> float:
    config = ScoreDistillationConfig(kind="score_distillation", **options)
    return LOSSES["score_distillation"](pairs, config).item()


def test_two_passages_give_the_divergence_computed_by_hand() -> None:
    # teacher: softmax(2 * (log 3) / 2, 0) = (3/4, 1/4)
    # student: cosines 1 and 0, softmax(log 9, 0) = (9/10, 1/10)
    passages = ScoredPassages(
        unit(0, 90)[None] * 5, torch.tensor([[math.log(3) / 2, 0.0]]), torch.tensor([0])
    )
    found = loss(lists(unit(0) * 3, passages), scale=math.log(9), teacher_scale=2)
    assert found == pytest.approx(0.75 * math.log(0.75 / 0.9) + 0.25 * math.log(0.25 / 0.1), abs=1e-6)


def test_only_differences_of_the_teachers_scores_count_and_its_own_cosines_cost_nothing() -> None:
    angles = unit(0, 40, 100)
    passages = ScoredPassages(angles[None], (20 * angles @ unit(0).T).T - 7, torch.tensor([0]))
    assert loss(lists(unit(0), passages), scale=20) == pytest.approx(0, abs=1e-6)
    flipped = ScoredPassages(angles[None], -passages.scores, passages.entry)
    assert loss(lists(unit(0), flipped), scale=20) > 5


def test_languages_of_one_entry_are_drawn_to_each_other() -> None:
    """Entries 4, 5, 4: the first and the last are the same query, its passages in another language."""
    scale = math.log(4)
    vectors = torch.stack([unit(0, 90), unit(0, 180), unit(90, 0)])
    passages = ScoredPassages(vectors, torch.zeros(3, 2), torch.tensor([4, 5, 4]))
    pairs = lists(unit(0, 0, 0), passages)
    p, q = (0.8, 0.2), (0.2, 0.8)
    between = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))  # the same both ways
    more = loss(pairs, scale=scale, language_weight=0.5) - loss(pairs, scale=scale)
    assert more == pytest.approx(0.5 * between, abs=1e-6)
    alone = lists(unit(0), ScoredPassages(vectors[:1], torch.zeros(1, 2), torch.tensor([4])))
    assert loss(alone, language_weight=9.0) == pytest.approx(loss(alone), abs=1e-7)


def test_gradients_are_those_of_finite_differences_also_of_prefixes() -> None:
    generator = torch.Generator().manual_seed(0)
    query, vectors = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((4, 3), (4, 5, 3))
    )
    scores = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    entry = torch.from_numpy(np.array([0, 1, 0, 0]))
    config = ScoreDistillationConfig(kind="score_distillation", scale=3, language_weight=0.7)

    def value(query: "torch.Tensor", vectors: "torch.Tensor") -> "torch.Tensor":
        pairs = lists(query, ScoredPassages(vectors, scores, entry))
        return LOSSES["score_distillation"](pairs.prefix(2), config)

    assert torch.autograd.gradcheck(value, (query, vectors), fast_mode=True)
    value(query, vectors).backward()
    assert vectors.grad is not None
    assert not vectors.grad[:, :, 2].any()
    assert vectors.grad[:, :, :2].all()
