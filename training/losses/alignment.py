"""Draw the two sides of a pair together (MEXMA, https://arxiv.org/abs/2409.12737)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import AlignmentConfig
from training.losses.pairs import EmbeddedPairs


def alignment(pairs: EmbeddedPairs, config: AlignmentConfig) -> torch.Tensor:  # noqa: ARG001
    """Return the mean of 1 - cos over the pairs. Without a loss that spreads the texts, all become one."""
    return (1 - functional.cosine_similarity(pairs.source, pairs.target, dim=1)).mean()
