"""Multilingual distillation of vectors (Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import DistillationConfig
from training.losses.pairs import EmbeddedPairs


def distillation(pairs: EmbeddedPairs, config: DistillationConfig) -> torch.Tensor:
    """Return the mean distance of both sides to the teacher's vector of the English one.

    "cosine" is 1 - cos. "mse" is the squared distance, summed over dimensions: their mean, as usually
    taken, is smaller by the dimension and all but vanishes for unit vectors. It teaches the norm, too.
    """
    both = pairs.in_teacher_space(torch.cat([pairs.source, pairs.target]))
    taught = torch.cat([pairs.taught, pairs.taught])
    if config.distance == "mse":
        return (both - taught).square().sum(dim=1).mean()
    return (1 - functional.cosine_similarity(both, taught, dim=1)).mean()
