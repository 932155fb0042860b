"""The static student: one vector and one learnt weight per token, and a sparse Adam made for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class _Means(torch.autograd.Function):
    """The means of bags of rows, as a sparse product: the gradient costs a third of torch's embedding_bag."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, bags: csr_matrix) -> torch.Tensor:
        ctx.bags = bags
        return torch.from_numpy(bags @ rows.numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(ctx.bags.T @ gradients[0].numpy()), None


class StaticTable:
    """An embedding table whose rows are trained only when a batch contains their token.

    A text is the mean of ``exp(log_weight[t]) * vector[t]`` over its tokens. Adam's moments of a
    row move only when the row is used (as in torch's SparseAdam), but the batch's distinct rows are
    gathered once and handled densely: several times faster than sparse gradients on a CPU.
    """

    def __init__(
        self, vocabulary: int, dimension: int, *, seed: int, token_share: NDArray[np.float64]
    ) -> None:
        """Start from small random vectors and smooth-inverse-frequency weights (Arora et al. 2017)."""
        generator = torch.Generator().manual_seed(seed)
        self.vector = torch.randn(vocabulary, dimension, generator=generator) * (1.0 / math.sqrt(dimension))
        self.log_weight = torch.log(1e-3 / (1e-3 + torch.from_numpy(token_share))).float()
        self._moments = {
            name: (torch.zeros_like(table), torch.zeros_like(table)) for name, table in self._tables().items()
        }
        self._used: torch.Tensor
        self._leaves: dict[str, torch.Tensor]

    def _tables(self) -> dict[str, torch.Tensor]:
        return {"vector": self.vector, "log_weight": self.log_weight}

    def embed(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> torch.Tensor:
        """Return (bags, dim), differentiable with respect to the rows of ``tokens``."""
        self._used = torch.from_numpy(tokens)
        self._leaves = {
            name: table.index_select(0, self._used).requires_grad_() for name, table in self._tables().items()
        }
        rows = self._leaves["vector"] * self._leaves["log_weight"].exp().unsqueeze(1)
        lengths = np.diff(offsets, append=len(positions))
        share = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
        starts = np.append(offsets, len(positions))
        bags = csr_matrix((share, positions, starts), shape=(len(offsets), len(tokens)))
        means: torch.Tensor = _Means.apply(rows, bags)  # type: ignore[no-untyped-call]
        return means

    def gradients(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the rows of the last batch, and the gradient of each by its table."""
        found = {name: leaf.grad for name, leaf in self._leaves.items()}
        return self._used, {name: gradient for name, gradient in found.items() if gradient is not None}

    def take_gradients(self, rows: torch.Tensor, gradients: dict[str, torch.Tensor]) -> None:
        """Let the next `update` learn from other gradients: those of several processes."""
        self._used = rows
        for name, gradient in gradients.items():
            self._leaves[name] = torch.empty_like(gradient, requires_grad=True)
            self._leaves[name].grad = gradient

    def finite(self) -> bool:
        """Return whether the gradients of the last batch are all numbers."""
        gradients = [leaf.grad for leaf in self._leaves.values()]
        return all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)

    @torch.no_grad()
    def update(self, step: int, learning_rate: float) -> None:
        """Apply Adam to the rows of the last ``embed``; ``step`` counts from 1."""
        correction1, correction2 = 1 - _BETA1**step, 1 - _BETA2**step
        for name, table in self._tables().items():
            gradient = self._leaves[name].grad
            assert gradient is not None, "update() follows backward()"
            first, second = self._moments[name]
            m = first.index_select(0, self._used).lerp_(gradient, 1 - _BETA1)
            v = second.index_select(0, self._used).mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            first.index_copy_(0, self._used, m)
            second.index_copy_(0, self._used, v)
            v.div_(correction2).sqrt_().add_(_EPSILON)
            table.index_add_(0, self._used, m.div_(v), alpha=-learning_rate / correction1)

    @torch.no_grad()
    def folded(self) -> NDArray[np.float32]:
        """Return the table (vocabulary, dim) with the token weights multiplied in: a plain static model."""
        rows: NDArray[np.float32] = (self.vector * self.log_weight.exp().unsqueeze(1)).numpy()
        return rows

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training needs to go on."""
        tensors = dict(self._tables())
        for name, (first, second) in self._moments.items():
            tensors[f"{name}.first"], tensors[f"{name}.second"] = first, second
        return tensors

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state, checked against the shapes of this table."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
