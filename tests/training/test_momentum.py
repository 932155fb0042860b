"""The momentum queue by hand: what it holds, what it leaves out, what is saved of it."""

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.loss_config import MomentumRankingConfig  # noqa: E402
from training.losses import LOSSES, EmbeddedPairs  # noqa: E402
from training.momentum import MomentumQueue  # noqa: E402
from training.relations import PairKeys  # noqa: E402


class Following:
    """A copy of a student that is one number; texts are unit vectors turned by that many degrees."""

    def __init__(self, student: list[float]) -> None:
        self.student, self.weight = student, torch.tensor(student[0])

    def follow(self, momentum: float) -> None:
        self.weight.mul_(momentum).add_(self.student[0], alpha=1 - momentum)

    def vectors(self, inputs: Any) -> "torch.Tensor":
        angle = torch.deg2rad(torch.tensor(inputs, dtype=torch.float32) + self.weight)
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def state(self) -> dict[str, "torch.Tensor"]:
        return {"weight": self.weight}

    def restore(self, state: dict[str, "torch.Tensor"]) -> None:
        self.weight.copy_(state["weight"])


def queue_of(places: int, student: list[float], momentum: float = 0.5) -> MomentumQueue:
    config = MomentumRankingConfig(kind="momentum_ranking", queue=places, momentum=momentum)
    return MomentumQueue(Following(student), config, torch.zeros(places, 2))


def keys(*groups: int) -> PairKeys:
    group = np.array(groups)
    return PairKeys(source=group, target=group + 1000, group=group)


def angles(vectors: "torch.Tensor") -> list[float]:
    return [round(math.degrees(math.atan2(y, x)), 2) for x, y in vectors.tolist()]


def test_the_copy_follows_before_it_is_asked() -> None:
    student = [0.0]
    queue = queue_of(2, student)
    student[0] = 8.0
    assert angles(queue.ranked([0, 0, 10, 20], keys(1, 2), "own").vectors)[:2] == [14.0, 24.0]
    assert angles(queue.ranked([0, 0, 10, 20], keys(1, 2), "own").vectors)[:2] == [16.0, 26.0]


def test_places_are_left_out_until_taken_and_the_oldest_are_taken_next() -> None:
    queue = queue_of(3, [0.0])
    first = queue.ranked([0, 0, 10, 20], keys(1, 2), "own")
    assert first.relations.tolist() == [[1, -1, 0, 0, 0], [-1, 1, 0, 0, 0]]
    queue.update()
    second = queue.ranked([0, 0, 30, 40], keys(3, 1), "own")
    assert angles(second.vectors) == [30, 40, 10, 20, 0]
    assert second.relations.tolist() == [[1, -1, -1, -1, 0], [-1, 1, 0, -1, 0]]  # 1 has come before
    queue.update()
    third = queue.ranked([0, 0, 50, 60], keys(5, 1), "group")
    assert angles(third.vectors) == [50, 60, 40, 20, 30]  # the place of 10 taken, 40 there
    assert third.relations.tolist() == [[1, -1, -1, -1, -1], [-1, 1, 0, -1, -1]]  # the same text twice


def test_a_batch_larger_than_the_queue_leaves_its_last_vectors() -> None:
    queue = queue_of(2, [0.0])
    queue.ranked([0, 0, 0, 10, 20, 30], keys(1, 2, 3), "own")
    queue.update()
    assert angles(queue.ranked([0, 40], keys(4), "own").vectors) == [40, 20, 30]


def test_the_loss_ranks_the_copys_vectors() -> None:
    queue = queue_of(2, [0.0])
    queue.ranked([0, 90], keys(9), "own")
    queue.update()
    ranked = queue.ranked([0, 0, 60, 180], keys(1, 2), "own")
    source = torch.tensor([[2.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    config = MomentumRankingConfig(kind="momentum_ranking", scale=2)
    pairs = EmbeddedPairs(source, source.detach(), torch.eye(2, dtype=torch.int8), keys=ranked)
    loss = LOSSES["momentum_ranking"](pairs, config)
    # cosines to 60, 180, 90 degrees: (0.5, -1, 0) for the first source, (-0.5, 1, 0) for the second
    first = -math.log(math.exp(1) / (math.exp(1) + math.exp(-2) + 1))
    second = -math.log(math.exp(2) / (math.exp(2) + math.exp(-1) + 1))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-5)
    assert LOSSES["momentum_ranking"](pairs.prefix(1), config).item() != pytest.approx(loss.item(), abs=0.1)


def test_a_restored_queue_goes_on_as_the_saved_one() -> None:
    student = [3.0]
    saved = queue_of(3, student)
    for start in (10, 30):
        saved.ranked([0, 0, start, start + 10], keys(start, start + 1), "own")
        saved.update()
    restored = queue_of(3, [50.0])
    restored.restore({name: tensor.clone() for name, tensor in saved.state().items()})
    ranks = [queue.ranked([0, 70], keys(30), "own") for queue in (saved, restored)]
    assert angles(ranks[0].vectors) == [73, 43, 23, 33]
    assert ranks[0].relations.tolist() == [[1, -1, -1, 0]] == ranks[1].relations.tolist()
    restored.restore(saved.state())
    assert restored.state().keys() == saved.state().keys()
    for name, tensor in saved.state().items():
        assert torch.equal(restored.state()[name], tensor), name
