"""Translation ranking with additive margin (LaBSE, https://arxiv.org/abs/2007.01852), 1-to-K positives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from training.loss_config import TranslationRankingConfig
from training.losses.pairs import EmbeddedPairs
from training.relations import NEGATIVE, POSITIVE

_AXES = {"both": (1, 0), "from_english": (1,), "to_english": (0,)}


def translation_ranking(pairs: EmbeddedPairs, config: TranslationRankingConfig) -> torch.Tensor:
    """Return the mean loss of ranking each text against the other side of the batch, both ways averaged.

    ``-log e^(s (cos(x, y) - m)) / (e^(s (cos(x, y) - m)) + sum_n e^(s cos(x, n)))`` over the negatives n
    of x; with several positives y the mean over them, none of which stands in another's denominator.
    Mined negatives stand among the n.
    """
    candidates = pairs.ranked
    margin = warm(config.margin, config.margin_warmup_steps, pairs.step)
    axes = _AXES[config.directions]
    forward = cosines(pairs.source, candidates.target)
    if pairs.others is None and pairs.negatives is None:  # one matrix is both directions
        losses = rank_losses(forward, candidates.forward, scale=config.scale, margin=margin, axes=axes)
        return torch.stack(losses).mean()
    backward = cosines(pairs.target, candidates.source)
    both = [(backward, candidates.backward), (forward, candidates.forward)]
    losses = [rank_losses(*both[axis], scale=config.scale, margin=margin)[0] for axis in axes]
    return torch.stack(losses).mean()


def warm(margin: float, steps: int, step: int) -> float:
    """Return the margin at a step: from 0 linearly up over the first steps."""
    return margin * min(1.0, step / steps) if steps else margin


def cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the cosine (rows of x, rows of y) of every two vectors."""
    return functional.normalize(x, dim=1) @ functional.normalize(y, dim=1).T


def rank_losses(
    cosine: torch.Tensor,
    relations: torch.Tensor,
    *,
    scale: float,
    margin: float,
    axes: Sequence[int] = (1,),
) -> list[torch.Tensor]:
    """Return one loss per axis: 1 ranks the columns for each row, 0 the rows for each column.

    Each is the mean over the texts of the mean over their positives; texts without any do not count.
    cosine: (rows, columns). relations: int8, the same shape: 1 positive, 0 left out, -1 negative.
    """
    # finite: a text without any negative has a gradient of zero, not NaN
    never = torch.finfo(cosine.dtype).min / 2
    negatives = (scale * cosine).masked_fill(relations != NEGATIVE, never)
    positives = (relations == POSITIVE).nonzero(as_tuple=True)
    gold = scale * (cosine[positives] - margin)
    losses = []
    for axis in axes:
        text = positives[1 - axis]
        behind = negatives.logsumexp(dim=axis)[text] - gold
        each = torch.logaddexp(behind, torch.zeros_like(behind))
        count = torch.bincount(text, minlength=cosine.shape[1 - axis])
        losses.append((each / count[text]).sum() / (count > 0).sum())
    return losses
