"""The static student: one vector and one learnt weight per token, and a sparse Adam made for it."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_ROWS = 512  # of a table, updated at once


class _Product(torch.autograd.Function):
    """A sparse matrix times rows: for means of bags a third of what torch's embedding_bag costs."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, matrix: csr_matrix) -> torch.Tensor:
        ctx.matrix = matrix
        return torch.from_numpy(matrix @ rows.numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(ctx.matrix.T @ gradients[0].numpy()), None


def _product(matrix: csr_matrix, rows: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = _Product.apply(rows, matrix)  # type: ignore[no-untyped-call]
    return product


@dataclass(frozen=True)
class RowGradients:
    """The gradients of some rows: ``rows`` (u,) ascending, and (u, …) of each table that has those rows."""

    rows: torch.Tensor
    tables: dict[str, torch.Tensor]


class StaticTable:
    """An embedding table whose rows are trained only when a batch contains their token.

    A text is the mean of ``exp(log_weight[t]) * vector[t]`` over its tokens; with n-grams
    (`training.piece_ngrams`) the vectors of a token's n-grams are added to its own. Adam's moments of a
    row move only when the row is used (as in torch's SparseAdam), but the batch's distinct rows are
    gathered once and handled densely: several times faster than sparse gradients on a CPU.
    """

    def __init__(
        self,
        vocabulary: int,
        dimension: int,
        *,
        seed: int,
        token_share: NDArray[np.float64],
        ngrams: csr_matrix | None = None,
    ) -> None:
        """Start from small random vectors and smooth-inverse-frequency weights (Arora et al. 2017).

        ngrams: (vocabulary, n-grams); their vectors start from nothing.
        """
        generator = torch.Generator().manual_seed(seed)
        self.vector = torch.randn(vocabulary, dimension, generator=generator) * (1.0 / math.sqrt(dimension))
        self.log_weight = torch.log(1e-3 / (1e-3 + torch.from_numpy(token_share))).float()
        self.ngrams = ngrams
        self.ngram_vector = None if ngrams is None else torch.zeros(ngrams.shape[1], dimension)
        self._moments = {
            name: (torch.zeros_like(table), torch.zeros_like(table)) for name, table in self.tables().items()
        }
        self._used: dict[str, torch.Tensor]
        self._leaves: dict[str, torch.Tensor]

    def tables(self) -> dict[str, torch.Tensor]:
        """Return every tensor that is learnt, by its name."""
        tables = {"vector": self.vector, "log_weight": self.log_weight}
        return tables if self.ngram_vector is None else {**tables, "ngram_vector": self.ngram_vector}

    def embed(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> torch.Tensor:
        """Return (bags, dim), differentiable with respect to the rows of ``tokens`` and of their n-grams."""
        self._used = dict.fromkeys(("vector", "log_weight"), torch.from_numpy(tokens))
        if self.ngrams is not None:
            chosen = self.ngrams[tokens]
            columns, place = np.unique(chosen.indices, return_inverse=True)
            self._used["ngram_vector"] = torch.from_numpy(columns.astype(np.int64))
        self._leaves = {
            name: table.index_select(0, self._used[name]).requires_grad_()
            for name, table in self.tables().items()
        }
        rows = self._leaves["vector"]
        if self.ngrams is not None:
            shape = (len(tokens), len(columns))
            rows = rows + _product(
                csr_matrix((chosen.data, place, chosen.indptr), shape=shape), self._leaves["ngram_vector"]
            )
        rows = rows * self._leaves["log_weight"].exp().unsqueeze(1)
        lengths = np.diff(offsets, append=len(positions))
        share = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
        starts = np.append(offsets, len(positions))
        return _product(csr_matrix((share, positions, starts), shape=(len(offsets), len(tokens))), rows)

    def gradients(self) -> list[RowGradients]:
        """Return the rows of the last batch, of tokens and of n-grams, and their gradients."""
        groups = [["vector", "log_weight"], *([] if self.ngrams is None else [["ngram_vector"]])]
        found = {name: leaf.grad for name, leaf in self._leaves.items() if leaf.grad is not None}
        return [
            RowGradients(self._used[names[0]], {name: found[name] for name in names if name in found})
            for names in groups
        ]

    def take_gradients(self, gradients: list[RowGradients]) -> None:
        """Let the next `update` learn from other gradients: those of several processes."""
        for group in gradients:
            for name, gradient in group.tables.items():
                self._used[name] = group.rows
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
        for name, table in self.tables().items():
            gradient = self._leaves[name].grad
            assert gradient is not None, "update() follows backward()"
            first, second = self._moments[name]
            # Some rows at a time: what is computed in between stays in the processor's cache.
            for rows, part in zip(
                torch.split(self._used[name], _ROWS), torch.split(gradient, _ROWS), strict=True
            ):
                m = first.index_select(0, rows).lerp_(part, 1 - _BETA1)
                v = second.index_select(0, rows).mul_(_BETA2).addcmul_(part, part, value=1 - _BETA2)
                first.index_copy_(0, rows, m)
                second.index_copy_(0, rows, v)
                v.div_(correction2).sqrt_().add_(_EPSILON)
                table.index_add_(0, rows, m.div_(v), alpha=-learning_rate / correction1)

    @torch.no_grad()
    def folded(self) -> NDArray[np.float32]:
        """Return the table (vocabulary, dim) with n-grams and token weights in it: a plain static model."""
        vector = self.vector
        if self.ngrams is not None and self.ngram_vector is not None:
            vector = vector + torch.from_numpy(self.ngrams @ self.ngram_vector.numpy())
        rows: NDArray[np.float32] = (vector * self.log_weight.exp().unsqueeze(1)).numpy()
        return rows

    def untaught_copy(self) -> StaticTable:
        """Return a copy of the weights alone."""
        copied = copy(self)
        copied.vector, copied.log_weight = self.vector.clone(), self.log_weight.clone()
        copied.ngram_vector = None if self.ngram_vector is None else self.ngram_vector.clone()
        copied._moments = {}
        return copied

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training needs to go on."""
        tensors = self.tables()
        for name, (first, second) in self._moments.items():
            tensors[f"{name}.first"], tensors[f"{name}.second"] = first, second
        return tensors

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state, checked against the shapes of this table."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
