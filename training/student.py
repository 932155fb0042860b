"""What a run can teach: the few things that a static table and a transformer do each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import TokenBags
from training.losses.tokens import TokenSides, TokenStates

Inputs = TypeVar("Inputs")
VectorLoss = Callable[[torch.Tensor], torch.Tensor]
"""From the vectors of a batch's texts (texts, dim), of any norm, to a scalar."""
TokenLoss = Callable[[torch.Tensor, "BatchStates"], torch.Tensor]


@dataclass(frozen=True)
class ReadyStudent:
    """What a student brings that exists before the data are read. Tokens are counted without special ones."""

    tokenize: Callable[[Sequence[str]], list[list[int]]]
    dimension: int
    max_tokens: int | None
    fingerprint: str


@dataclass(frozen=True)
class TokenShape:
    """Of a student with token states: their width, how many ids there are, and the id that masks a token."""

    hidden: int
    vocabulary: int
    mask: int | None


@dataclass(frozen=True)
class BatchStates:
    """The token states of a batch's texts, those of the masked ones, and the student's token vectors.

    vocabulary: (ids, hidden), differentiable.
    """

    texts: TokenStates
    masked: TokenStates | None
    vocabulary: torch.Tensor

    def sides(self, size: int) -> TokenSides:
        """Return the first ``size`` texts as sources, as many next ones as targets."""
        source, target = slice(size), slice(size, 2 * size)
        masked = (None, None) if self.masked is None else (self.masked[source], self.masked[target])
        return TokenSides(self.texts[source], self.texts[target], self.vocabulary, *masked)


@dataclass(frozen=True)
class BatchInputs:
    """What a student has prepared of a batch's texts and, where losses need them, of the masked texts."""

    texts: Any
    masked: Any = None


class SlowCopy(Protocol):
    """A copy of a student, which follows it slowly and learns nothing by itself."""

    def follow(self, momentum: float) -> None:
        """Let each weight be ``momentum`` of itself and the rest the student's."""

    def vectors(self, inputs: Any) -> torch.Tensor:
        """Return (texts, dim) without gradients, of what the student prepared."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the copy's weights."""

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""


class Student(Protocol[Inputs]):
    """A model in training. ``Inputs`` is what it makes of a batch's texts ahead of the step."""

    @property
    def dimension(self) -> int:
        """The length of its vectors."""

    @property
    def device(self) -> torch.device:
        """Where its vectors are."""

    def prepared(self, texts: TokenBags) -> Inputs:
        """Return the texts in the shape that `backward` takes; called in the thread that draws batches."""

    def backward(self, inputs: Inputs, loss: VectorLoss) -> torch.Tensor:
        """Make the gradients of ``loss`` over the texts' vectors, those of its own parameters too.

        Returns its value, detached. The rows that ``loss`` gets are in the order of the texts.
        """

    @property
    def tokens(self) -> TokenShape | None:
        """What its token states are like; None where it has none."""

    def backward_tokens(self, inputs: BatchInputs, loss: TokenLoss) -> torch.Tensor:
        """As `backward`, of a loss that sees the states of every token, too."""

    def average(self) -> None:
        """Put the mean over all processes in the place of the last batch's gradients."""

    def finite(self) -> bool:
        """Return whether the gradients of the last batch are all numbers."""

    def update(self, step: int, learning_rate: float) -> None:
        """Learn from the gradients of the last batch; ``step`` counts from 1."""

    def vectors(self, texts: TokenBags) -> NDArray[np.float32]:
        """Return (texts, dim) unit rows, as the encoder gives them that `write` saves."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training needs to go on."""

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""

    def slow_copy(self) -> SlowCopy:
        """Return a copy that follows the student."""

    def write(self, folder: Path) -> None:
        """Write a model folder that is served as it is; nothing can be taught any more."""
