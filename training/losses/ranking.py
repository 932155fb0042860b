"""Softmax ranking with a margin, value and gradient in one pass: all a ranking loss costs on a processor.

Autograd would keep several (rows, columns) matrices and go through each of them both ways. Here the
exponentials are taken once, serve the ranking of columns for each row and of rows for each column, and
become the gradient in place; what is kept for the backward pass has the size of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.relations import NEGATIVE, POSITIVE

# exp() of a float32 ranges from e^-87; one common reference value serves scores that are not further apart.
_RANGE = 80.0


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
        scores = (rows @ columns.T).to(rows.dtype).mul_(how.scale)  # autocast may have made it bfloat16
        positives = _positives(relations)
        gold = scores[positives] - how.scale * how.margin
        parts = _exponentials(scores, relations, how.axes)
        loss, gradient = torch.zeros((), dtype=rows.dtype, device=rows.device), torch.zeros_like(gold)
        factors = []
        for axis, (part, top) in zip(how.axes, parts, strict=True):
            value, pulled, factor = _along(axis, part, top, positives, gold)
            loss, gradient = loss + value / len(parts), gradient + pulled / len(parts)
            factors.append(factor / len(parts))
        wanted = ctx.needs_input_grad
        if wanted[0] or wanted[1]:
            pushed = _pushed(parts, factors, how.axes)
            pushed[positives] -= gradient
            ctx.save_for_backward(
                (pushed @ columns).to(rows.dtype).mul_(how.scale) if wanted[0] else None,
                (pushed.T @ rows).to(rows.dtype).mul_(how.scale) if wanted[1] else None,
            )
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*(None if one is None else one * gradients[0] for one in ctx.saved_tensors), None, None)


def ranking(
    rows: torch.Tensor, columns: torch.Tensor, relations: torch.Tensor, how: RankingScale
) -> torch.Tensor:
    """Return the mean over the texts of ``-log e^(s (cos - m)) / (e^(s (cos - m)) + sum_n e^(s cos_n))``.

    For a text with several positives the mean over them, none of which stands in another's denominator;
    texts without any do not count. rows (R, dim), columns (C, dim): unit vectors. relations: int8 (R, C):
    1 positive, 0 left out, -1 negative.
    """
    loss: torch.Tensor = _Ranking.apply(rows, columns, relations, how)  # type: ignore[no-untyped-call]
    return loss


def _positives(relations: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if relations.is_cuda:
        return (relations == POSITIVE).nonzero(as_tuple=True)
    return tuple(map(torch.from_numpy, np.nonzero(relations.numpy() == POSITIVE)))


def _exponentials(
    scores: torch.Tensor, relations: torch.Tensor, axes: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for each axis ``e^(score - top)`` of the negatives, 0 elsewhere, and top.

    One matrix serves both axes where the scores are near enough to each other for float32.
    """
    negative = relations == NEGATIVE
    if scores.max() - scores.min() <= _RANGE:
        top = scores.max()
        return [(scores.sub_(top).exp_().mul_(negative), top)] * len(axes)
    scores.masked_fill_(~negative, torch.finfo(scores.dtype).min / 2)
    tops = [scores.amax(axis, keepdim=True) for axis in axes]
    return [((scores - top).exp_().mul_(negative), top.flatten()) for top in tops]


def _along(
    axis: int, part: torch.Tensor, top: torch.Tensor, positives: tuple[torch.Tensor, ...], gold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss along one axis, its gradient by each gold score, and a factor per text."""
    text, total = positives[1 - axis], part.sum(axis)
    count = torch.bincount(text, minlength=len(total))
    share = torch.ones_like(gold) / (count[text] * (count > 0).sum())
    behind = (total.log() + top)[text] - gold
    pulled = share * behind.sigmoid()
    factor = torch.zeros_like(total).index_add_(0, text, pulled)
    factor = torch.where(total > 0, factor / total, 0.0)
    return (share * torch.logaddexp(behind, torch.zeros_like(behind))).sum(), pulled, factor


def _pushed(
    parts: list[tuple[torch.Tensor, torch.Tensor]], factors: list[torch.Tensor], axes: Sequence[int]
) -> torch.Tensor:
    """Return the gradient by the negatives' scores, in place of the exponentials."""
    spread = [factor.unsqueeze(axis) for axis, factor in zip(axes, factors, strict=True)]
    if len(parts) == 1:
        return parts[0][0].mul_(spread[0])
    if parts[0][0] is parts[1][0]:
        return parts[0][0].mul_(spread[0] + spread[1])
    return parts[0][0].mul_(spread[0]).add_(parts[1][0].mul_(spread[1]))
