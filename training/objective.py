"""The weighted sum of a recipe's losses, each over the full dimension and a Matryoshka prefix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from training.loss_config import LossConfig
from training.losses import LOSSES, EmbeddedPairs

HEAD_RATE = 1e-3
"""The highest learning rate of what is not the student's; its course is the student's, its height its own."""


class Objective:
    """Sums losses. ``into_teacher`` (dimension, teacher's dimension) is trained with the student.

    The projection has an Adam of its own: it is used by every batch, a static student's rows are not.
    """

    def __init__(
        self,
        losses: Sequence[LossConfig],
        *,
        projection: tuple[int, int] | None = None,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self._losses = losses
        self.into_teacher: torch.Tensor | None = None
        self._adam: torch.optim.Adam | None = None
        if projection is not None:
            start = torch.randn(projection, generator=torch.Generator().manual_seed(seed)).to(device)
            self.into_teacher = (start / math.sqrt(projection[0])).requires_grad_()
            self._adam = torch.optim.Adam([self.into_teacher])

    def __call__(
        self, pairs: EmbeddedPairs, prefixes: Sequence[int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the sum to be minimised, and each loss by itself, without its weight.

        Every loss is the mean over the prefix lengths given (Matryoshka, https://arxiv.org/abs/2205.13147).
        """
        parts = {loss.kind: self._mean(loss, pairs, prefixes) for loss in self._losses}
        weighted = [loss.weight * part for loss, part in zip(self._losses, parts.values(), strict=True)]
        return torch.stack(weighted).sum(), {kind: part.detach() for kind, part in parts.items()}

    def _mean(self, loss: LossConfig, pairs: EmbeddedPairs, prefixes: Sequence[int]) -> torch.Tensor:
        function = LOSSES[loss.kind]
        return torch.stack([function(pairs.prefix(size), loss) for size in prefixes]).mean()

    def update(self, learning_rate: float) -> None:
        """Let the projection learn from the gradients of the last batch."""
        if self._adam is not None:
            self._adam.param_groups[0]["lr"] = learning_rate
            self._adam.step()
            self._adam.zero_grad()

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training needs to go on."""
        if self.into_teacher is None or self._adam is None:
            return {}
        moments = self._adam.state[self.into_teacher]
        return {"into_teacher": self.into_teacher.detach(), **moments}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        if self.into_teacher is None or self._adam is None or not state:
            return
        with torch.no_grad():
            self.into_teacher.copy_(state["into_teacher"])
        moments = {name: tensor for name, tensor in state.items() if name != "into_teacher"}
        self._adam.state[self.into_teacher] = moments
