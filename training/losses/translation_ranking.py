"""Translation ranking with additive margin (LaBSE, https://arxiv.org/abs/2007.01852), 1-to-K positives."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import TranslationRankingConfig
from training.losses.pairs import EmbeddedPairs
from training.losses.ranking import RankingScale, ranking

_AXES = {"both": (1, 0), "from_english": (1,), "to_english": (0,)}


def translation_ranking(pairs: EmbeddedPairs, config: TranslationRankingConfig) -> torch.Tensor:
    """Return the mean loss of ranking each text against the other side of the batch, both ways averaged.

    ``-log e^(s (cos(x, y) - m)) / (e^(s (cos(x, y) - m)) + sum_n e^(s cos(x, n)))`` over the negatives n
    of x; with several positives y the mean over them, none of which stands in another's denominator.
    Mined negatives stand among the n.
    """
    axes = _AXES[config.directions]
    margin = warm(config.margin, config.margin_warmup_steps, pairs.step)
    source, target = unit(pairs.source), unit(pairs.target)
    if pairs.others is None and pairs.negatives is None:  # one matrix is both directions
        return ranking(source, target, pairs.relations, RankingScale(config.scale, margin, axes))
    others, how = pairs.ranked, RankingScale(config.scale, margin)
    both = {1: (source, others.target, others.forward), 0: (target, others.source, others.backward)}
    losses = [ranking(both[axis][0], unit(both[axis][1]), both[axis][2], how) for axis in axes]
    return torch.stack(losses).mean()


def warm(margin: float, steps: int, step: int) -> float:
    """Return the margin at a step: from 0 linearly up over the first steps."""
    return margin * min(1.0, step / steps) if steps else margin


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Return the rows (n, dim) at length 1."""
    return functional.normalize(vectors, dim=1)
