"""Spread texts over the sphere (KoLeo, Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import KoLeoConfig
from training.losses.pairs import EmbeddedPairs
from training.losses.translation_ranking import unit
from training.relations import NEGATIVE

_EPSILON = 1e-4  # below it two texts do not push each other any harder


def koleo(pairs: EmbeddedPairs, config: KoLeoConfig) -> torch.Tensor:  # noqa: ARG001
    """Return ``-mean log`` of the distance of each text to the nearest one of its own side.

    Texts that mean the same are not pushed apart. A text without any other one does not count.
    """
    candidates = pairs.candidates
    forward = nearest_distance_loss(pairs.source, candidates.source, candidates.forward)
    return (forward + nearest_distance_loss(pairs.target, candidates.target, candidates.backward)) / 2


def nearest_distance_loss(rows: torch.Tensor, columns: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
    """Return ``-mean log`` of the distance of each row to its nearest negative column, unit vectors."""
    negative = relations == NEGATIVE
    with torch.no_grad():
        nearest = (unit(rows) @ unit(columns).T).masked_fill(~negative, -2.0).argmax(dim=1)
    counted = negative.any(dim=1)
    x = functional.normalize(rows, dim=1)[counted]
    y = functional.normalize(columns, dim=1)[nearest[counted]]
    logs = (functional.pairwise_distance(x, y, eps=0.0) + _EPSILON).log()
    return -logs.sum() / counted.sum().clamp(min=1)
