"""Momentum contrast (MoCo, https://arxiv.org/abs/1911.05722; mContriever, https://arxiv.org/abs/2112.09118)."""

from __future__ import annotations

import torch

from training.loss_config import MomentumRankingConfig
from training.losses.pairs import EmbeddedPairs
from training.losses.ranking import RankingScale, ranking
from training.losses.translation_ranking import unit


def momentum_ranking(pairs: EmbeddedPairs, config: MomentumRankingConfig) -> torch.Tensor:
    """Return the mean loss of ranking the other side's vectors of a slow copy of the student for each source.

    Ranked are those of the batch and the thousands of earlier batches that the queue keeps, none of which
    needs a gradient: many negatives without a large batch.
    """
    keys = pairs.momentum_keys
    how = RankingScale(config.scale, margin=0.0)
    return ranking(unit(pairs.source), unit(keys.vectors), keys.relations, how)
