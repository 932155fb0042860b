"""Cached gradients are the plain ones to the last digits, with dropout and weights of the loss's own."""

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.cached_gradients import cached_gradients  # noqa: E402
from training.loss_config import TeacherRankingConfig, TranslationRankingConfig  # noqa: E402
from training.losses import EmbeddedPairs  # noqa: E402
from training.objective import Objective  # noqa: E402


def test_chunks_give_the_gradients_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    student = torch.nn.Sequential(
        torch.nn.Linear(5, 16), torch.nn.Dropout(0.3), torch.nn.Tanh(), torch.nn.Linear(16, 8)
    ).double()
    texts, teacher = torch.randn(24, 5).double(), torch.randn(12, 6).double()
    losses = [TranslationRankingConfig(), TeacherRankingConfig(kind="teacher_ranking", weight=2)]
    objective = Objective(losses, projection=(8, 6))
    assert objective.into_teacher is not None
    objective.into_teacher = objective.into_teacher.detach().double().requires_grad_()
    weights = [*student.parameters(), objective.into_teacher]
    relations = 2 * torch.eye(12, dtype=torch.int8) - 1

    def loss(vectors: "torch.Tensor") -> "torch.Tensor":
        source, target = vectors[:12], vectors[12:]
        pairs = EmbeddedPairs(source, target, relations, teacher=teacher)
        return objective(pairs, [8, 4])[0]

    def gradients() -> list["torch.Tensor"]:
        return [weight.grad.clone() for weight in weights if weight.grad is not None]

    chunks = texts.split(7)
    torch.manual_seed(1)
    plain = loss(torch.cat([student(chunk) for chunk in chunks]))
    plain.backward()
    expected, after = gradients(), torch.rand(1)

    def cached(seed: int) -> "torch.Tensor":
        for weight in weights:
            weight.grad = None
        torch.manual_seed(seed)
        return cached_gradients(student, chunks, loss)

    assert cached(1).item() == pytest.approx(plain.item(), abs=1e-12)
    assert torch.rand(1) == after
    assert len(expected) == len(gradients()) == 5
    for found, wanted in zip(gradients(), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    cached(2)  # other texts left out by dropout: the comparison can fail
    assert not torch.allclose(gradients()[0], expected[0], rtol=0, atol=1e-6)
