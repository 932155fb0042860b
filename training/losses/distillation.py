"""Multilingual distillation of vectors (Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import Distance, DistillationConfig
from training.losses.pairs import EmbeddedPairs


def distillation(pairs: EmbeddedPairs, config: DistillationConfig) -> torch.Tensor:
    """Return the mean distance of both sides to the teacher's vector of the English one.

    "cosine" is 1 - cos. "mse" is the squared distance, summed over dimensions: their mean, as usually
    taken, is smaller by the dimension and all but vanishes for unit vectors. It teaches the norm, too.
    """
    english, other = (
        _distance(pairs.in_teacher_space(side), pairs.taught, config.distance)
        for side in (pairs.source, pairs.target)
    )
    return config.english_share * english + (1 - config.english_share) * other


def _distance(vectors: torch.Tensor, taught: torch.Tensor, distance: Distance) -> torch.Tensor:
    if distance == "mse":
        return (vectors - taught).square().sum(dim=1).mean()
    return (1 - functional.cosine_similarity(vectors, taught, dim=1)).mean()
