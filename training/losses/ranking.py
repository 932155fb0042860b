"""Softmax ranking with a margin, value and gradient in one pass: all a ranking loss costs on a processor.

Autograd would keep several (rows, columns) matrices and go through each of them both ways. Here the
exponentials are taken once, block by block while they are in the processor's cache, serve the ranking of
columns for each row and of rows for each column, and give the gradient of the vectors at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.relations import NEGATIVE, POSITIVE

# exp() of a float32 ranges from e^-87: scores of cosines times half as much need no reference of their own.
_RANGE = 80.0
_BLOCK = 256  # rows


@dataclass(frozen=True)
class RankingScale:
    """``axes``: 1 ranks the columns for each row, 0 the rows for each column; the mean over them is taken."""

    scale: float
    margin: float
    axes: Sequence[int] = (1,)


class _Ranking(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, columns: torch.Tensor, relations: torch.Tensor, how: RankingScale
    ) -> torch.Tensor:
        positives = _positives(relations)
        first, second = rows[positives[0]], columns[positives[1]]
        gold = how.scale * ((first * second).sum(dim=1) - how.margin)
        parts = _exponentials(rows, columns, relations, how)
        loss, pulled, factors = gold.new_zeros(()), torch.zeros_like(gold), {}
        for axis, (part, top) in parts.items():
            value, pull, factor = _along(axis, part.sum(axis), top, positives, gold)
            loss, pulled = loss + value / len(parts), pulled + pull / len(parts)
            factors[axis] = factor.unsqueeze(axis) / len(parts)
        if any(ctx.needs_input_grad[:2]):
            pushed = _pushed({axis: part for axis, (part, _) in parts.items()}, factors)
            gradients = _products(pushed, rows, columns)
            pulled = pulled.unsqueeze(1)
            gradients[0].index_add_(0, positives[0], pulled * second, alpha=-1)
            gradients[1].index_add_(0, positives[1], pulled * first, alpha=-1)
            ctx.save_for_backward(*(gradient.mul_(how.scale) for gradient in gradients))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*(one * gradients[0] for one in ctx.saved_tensors), None, None)


def ranking(
    rows: torch.Tensor, columns: torch.Tensor, relations: torch.Tensor, how: RankingScale
) -> torch.Tensor:
    """Return the mean over the texts of ``-log e^(s (cos - m)) / (e^(s (cos - m)) + sum_n e^(s cos_n))``.

    For a text with several positives the mean over them, none of which stands in another's denominator;
    texts without any do not count. rows (R, dim), columns (C, dim): unit vectors, whose products are
    taken in the type of an autocast around the call. relations: int8 (R, C): 1 positive, 0 left out,
    -1 negative.
    """
    loss: torch.Tensor = _Ranking.apply(rows, columns, relations, how)  # type: ignore[no-untyped-call]
    return loss


def _positives(relations: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if relations.is_cuda:
        return (relations == POSITIVE).nonzero(as_tuple=True)
    return tuple(map(torch.from_numpy, np.nonzero(relations.numpy() == POSITIVE)))


def _exponentials(
    rows: torch.Tensor, columns: torch.Tensor, relations: torch.Tensor, how: RankingScale
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return for each axis ``e^(score - top)`` of the negatives, 0 elsewhere, and top.

    One matrix serves both axes unless the scale is too large for one reference value.
    """
    scores = rows.new_empty(len(rows), len(columns))
    narrow = 2 * how.scale <= _RANGE
    low_columns = _low(columns).T
    for block in _blocks(rows):
        part = (_low(rows[block]) @ low_columns).to(rows.dtype)
        if narrow:
            part = part.sub_(1).mul_(how.scale).exp_().mul_(relations[block] == NEGATIVE)
        scores[block] = part
    if narrow:
        top = scores.new_tensor(how.scale)
        return dict.fromkeys(how.axes, (scores, top))
    negative = relations == NEGATIVE
    scores.mul_(how.scale).masked_fill_(~negative, torch.finfo(scores.dtype).min / 2)
    tops = {axis: scores.amax(axis, keepdim=True) for axis in how.axes}
    return {axis: ((scores - top).exp_().mul_(negative), top.flatten()) for axis, top in tops.items()}


def _along(
    axis: int, total: torch.Tensor, top: torch.Tensor, positives: tuple[torch.Tensor, ...], gold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss along one axis, its gradient by each gold score, and a factor per text."""
    text = positives[1 - axis]
    count = torch.bincount(text, minlength=len(total))
    share = torch.ones_like(gold) / (count[text] * (count > 0).sum())
    behind = (total.log() + top)[text] - gold
    pulled = share * behind.sigmoid()
    factor = torch.zeros_like(total).index_add_(0, text, pulled)
    factor = torch.where(total > 0, factor / total, 0.0)
    return (share * torch.logaddexp(behind, torch.zeros_like(behind))).sum(), pulled, factor


def _pushed(parts: dict[int, torch.Tensor], factors: dict[int, torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the gradient by the negatives' scores, a block of rows after another."""
    shared = parts[max(parts)] is parts[min(parts)]
    for block in _blocks(parts[max(parts)]):
        here = {axis: factor[block] if axis == 1 else factor for axis, factor in factors.items()}
        if shared:
            yield parts[max(parts)][block] * sum(here.values())
        else:
            yield torch.stack([part[block] * here[axis] for axis, part in parts.items()]).sum(dim=0)


def _products(
    pushed: Iterator[torch.Tensor], rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients by rows and columns: ``pushed @ columns`` and ``pushed.T @ rows``."""
    by_rows, by_columns, low_columns = torch.empty_like(rows), torch.zeros_like(columns), _low(columns)
    for block, part in zip(_blocks(rows), pushed, strict=True):
        low = _low(part)
        by_rows[block] = (low @ low_columns).to(rows.dtype)
        by_columns += low.T @ _low(rows[block])
    return by_rows, by_columns


def _blocks(rows: torch.Tensor) -> Iterator[slice]:
    size = len(rows) if rows.is_cuda else _BLOCK
    return (slice(begin, begin + size) for begin in range(0, len(rows), size))


def _low(values: torch.Tensor) -> torch.Tensor:
    """Return the values in the type that an autocast asks for; without one, as they are."""
    kind = values.device.type
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values
