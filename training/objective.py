"""The weighted sum of a recipe's losses, each over the full dimension and a Matryoshka prefix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from training.loss_config import LossConfig
from training.losses import LOSSES, EmbeddedPairs
from training.momentum import MomentumQueue
from training.processes import average

HEAD_RATE = 1e-3
"""The highest learning rate of what is not the student's; its course is the student's, its height its own."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Aids:
    """What losses have besides the student: ``heads`` by the kind of their loss, and a momentum queue."""

    heads: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    momentum: MomentumQueue | None = None


class Objective:
    """Sums losses. ``into_teacher`` (dimension, teacher's dimension) and heads are trained with the student.

    They have an Adam of their own: they are used by every batch, a static student's rows are not.
    """

    def __init__(
        self,
        losses: Sequence[LossConfig],
        *,
        projection: tuple[int, int] | None = None,
        aids: Aids | None = None,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self._losses = losses
        self.into_teacher: torch.Tensor | None = None
        self.heads = (aids or Aids()).heads
        self.momentum = (aids or Aids()).momentum
        if projection is not None:
            start = torch.randn(projection, generator=torch.Generator().manual_seed(seed)).to(device)
            self.into_teacher = (start / math.sqrt(projection[0])).requires_grad_()
        self.trained = self._trained()
        self._adam = torch.optim.Adam(self.trained.values()) if self.trained else None

    @property
    def sees_tokens(self) -> bool:
        """Whether a loss needs token states."""
        return any(loss.needs.tokens for loss in self._losses)

    @property
    def masked(self) -> float:
        """The share of tokens that losses need masked; 0 for none."""
        return max(loss.needs.masked for loss in self._losses)

    def _trained(self) -> dict[str, torch.Tensor]:
        """Return every tensor that is trained beside the student, by name."""
        trained: dict[str, torch.Tensor] = {
            f"{kind}.{name}": weight
            for kind, head in self.heads.items()
            for name, weight in head.named_parameters()
        }
        return trained if self.into_teacher is None else {"into_teacher": self.into_teacher, **trained}

    def __call__(
        self, pairs: EmbeddedPairs, prefixes: Sequence[int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the sum to be minimised, and each loss by itself, without its weight.

        Every loss is the mean over the prefix lengths given (Matryoshka, https://arxiv.org/abs/2205.13147),
        but for those of token states, which have no prefixes.
        """
        pairs = replace(pairs, into_teacher=self.into_teacher, heads=self.heads)
        parts = {loss.kind: self._mean(loss, pairs, prefixes) for loss in self._losses}
        weighted = [loss.weight * part for loss, part in zip(self._losses, parts.values(), strict=True)]
        return torch.stack(weighted).sum(), {kind: part.detach() for kind, part in parts.items()}

    def _mean(self, loss: LossConfig, pairs: EmbeddedPairs, prefixes: Sequence[int]) -> torch.Tensor:
        function = LOSSES[loss.kind]
        if loss.needs.tokens:
            return function(pairs, loss)
        return torch.stack([function(pairs.prefix(size), loss) for size in prefixes]).mean()

    def average(self) -> None:
        """Put the mean over all processes in the place of the gradients of what is trained beside it."""
        average([weight.grad for weight in self.trained.values() if weight.grad is not None])

    def update(self, learning_rate: float) -> None:
        """Let what is trained learn from the gradients of the last batch; put its vectors in the queue."""
        if self._adam is not None:
            self._adam.param_groups[0]["lr"] = learning_rate
            self._adam.step()
            self._adam.zero_grad()
        if self.momentum is not None:
            self.momentum.update()

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training needs to go on."""
        tensors = {name: weight.detach() for name, weight in self.trained.items()}
        for name, weight in self.trained.items():
            moments = self._adam.state.get(weight, {}) if self._adam else {}
            tensors |= {f"{moment}.{name}": value for moment, value in moments.items()}
        queue = self.momentum.state() if self.momentum is not None else {}
        return tensors | {f"momentum.{name}": tensor for name, tensor in queue.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        for name, weight in self.trained.items():
            weight.copy_(state[name])
            if self._adam is not None and f"step.{name}" in state:
                moments = {moment: state[f"{moment}.{name}"].to(weight.device) for moment in _MOMENTS}
                self._adam.state[weight] = {"step": state[f"step.{name}"], **moments}
        if self.momentum is not None:
            prefix = "momentum."
            self.momentum.restore({n.removeprefix(prefix): state[n] for n in state if n.startswith(prefix)})
