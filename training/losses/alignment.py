"""Draw the two sides of a pair together (MEXMA, https://arxiv.org/abs/2409.12737)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import AlignmentConfig
from training.losses.pairs import EmbeddedPairs


def alignment(pairs: EmbeddedPairs, config: AlignmentConfig) -> torch.Tensor:
    """Return the mean distance of the pairs. Without a loss that spreads the texts, all become one.

    "cosine" is 1 - cos, "mse" the squared distance, summed over dimensions.
    """
    if config.distance == "mse":
        return (pairs.source - pairs.target).square().sum(dim=1).mean()
    return (1 - functional.cosine_similarity(pairs.source, pairs.target, dim=1)).mean()
