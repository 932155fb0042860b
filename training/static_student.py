"""The static table as a student: bags of the batch's own distinct tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.encoders.static_table import mean_rows
from embedsvc.errors import InvalidInputError
from embedsvc.postprocess import finish_vectors
from training.config import Recipe
from training.data import TokenBags
from training.processes import average_rows, world
from training.static_export import turned_within, write_static_folder
from training.static_model import RowGradients, StaticTable
from training.student import BatchInputs, TokenLoss, VectorLoss


@dataclass(frozen=True)
class DistinctTokens:
    """``tokens`` (u,) are distinct ids, ``positions`` index into them, ``offsets`` (texts,) start each."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    offsets: NDArray[np.int64]


class StaticStudent:
    """Teaches a `StaticTable`."""

    device = torch.device("cpu")

    def __init__(self, table: StaticTable, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self.table = table
        self._tokenizer = tokenizer
        self._recipe = recipe

    @property
    def dimension(self) -> int:
        return int(self.table.vector.shape[1])

    def prepared(self, texts: TokenBags) -> DistinctTokens:
        """Find the distinct tokens, so that each row of the table is gathered once."""
        tokens, positions = np.unique(texts.ids, return_inverse=True)
        return DistinctTokens(tokens.astype(np.int64), positions.astype(np.int64), texts.starts[:-1])

    def backward(self, inputs: DistinctTokens, loss: VectorLoss) -> torch.Tensor:
        """Make the gradients of the rows that the batch has."""
        vectors = self.table.embed(inputs.tokens, inputs.positions, inputs.offsets)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._recipe.schedule.precision == "bf16"):
            value = loss(vectors)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    @property
    def tokens(self) -> None:
        """A table has no token states: recipes whose losses need them are refused."""
        return None

    def backward_tokens(self, inputs: BatchInputs, loss: TokenLoss) -> torch.Tensor:  # noqa: ARG002
        """See `tokens`."""
        raise InvalidInputError("a static table has no token states")

    def average(self) -> None:
        """Learn from every process's rows; with one process nothing is copied."""
        if world() > 1:
            averaged = [average_rows(group.rows, group.tables) for group in self.table.gradients()]
            self.table.take_gradients([RowGradients(*group) for group in averaged])

    def finite(self) -> bool:
        """Return whether the gradients of the last batch are all numbers."""
        return self.table.finite()

    def update(self, step: int, learning_rate: float) -> None:
        """Apply Adam to the rows of the last batch."""
        self.table.update(step, learning_rate)

    def vectors(self, texts: TokenBags) -> NDArray[np.float32]:
        """Return (texts, dim) unit rows."""
        means = mean_rows(self.table.folded(), texts.ids.astype(np.int64), texts.lengths)
        unit: NDArray[np.float32] = finish_vectors(means, dimensions=None, normalize=True)
        return unit

    def state(self) -> dict[str, torch.Tensor]:
        """Return the table and its optimiser's moments."""
        return self.table.state()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        self.table.restore(state)

    def slow_copy(self) -> SlowTable:
        """Return a copy that follows the table."""
        return SlowTable(self.table)

    def write(self, folder: Path) -> None:
        """Write the table with n-grams and token weights in its rows.

        The directions of a "pca" teacher are ordered by size, which codes of few bits do not bear well:
        they are turned at random within each Matryoshka block. No similarity changes, of prefixes neither.
        """
        prefixes = self._recipe.model.matryoshka
        sizes = sorted([*prefixes, self.dimension])
        table, teacher = self.table.folded(), self._recipe.teacher
        if teacher is not None and teacher.projection == "pca":
            table = turned_within(table, sizes, seed=self._recipe.seed)
        write_static_folder(
            folder,
            table,
            self._tokenizer.to_str(),
            matryoshka_dimensions=sizes if prefixes else [],
            dtype=self._recipe.model.dtype or "int8",
        )


class SlowTable:
    """Follows a `StaticTable` (`training.momentum.SlowCopy`)."""

    def __init__(self, table: StaticTable) -> None:
        self._table = table
        self._slow = table.untaught_copy()

    def follow(self, momentum: float) -> None:
        """Let each weight be ``momentum`` of itself and the rest the table's."""
        for name, slow in self._slow.tables().items():
            slow.lerp_(self._table.tables()[name], 1 - momentum)

    @torch.no_grad()
    def vectors(self, inputs: DistinctTokens) -> torch.Tensor:
        """Return (texts, dim) without gradients."""
        return self._slow.embed(inputs.tokens, inputs.positions, inputs.offsets)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the copy's weights."""
        return self._slow.tables()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        for name, slow in self._slow.tables().items():
            slow.copy_(state[name])
