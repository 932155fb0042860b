"""Bidirectional translation ranking with additive margin (LaBSE, https://arxiv.org/abs/2007.01852)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def translation_ranking(
    source: torch.Tensor,
    target: torch.Tensor,
    ignored: torch.Tensor,
    *,
    scale: float,
    margin: float,
    prefixes: Sequence[int] | None = None,
) -> torch.Tensor:
    """Return the mean softmax ranking loss of each text against the other side of the batch.

    For every prefix length d (Matryoshka), with unit vectors x, y of the first d dimensions:
    ``L = -1/B sum_i log softmax_j(scale * (cos(x_i, y_j) - margin * [i = j]))`` in both directions.

    source, target: (B, dim), row i of one translates row i of the other, any norm.
    ignored: bool (B, B); True where column j is *not* a valid negative of row i because it is
    another translation of the same sentence. The diagonal must be False.
    """
    sizes = prefixes or (source.shape[1],)
    total = source.new_zeros(())
    labels = torch.arange(len(source), device=source.device)
    for size in sizes:
        x = functional.normalize(source[:, :size], dim=1)
        y = functional.normalize(target[:, :size], dim=1)
        logits = scale * (x @ y.T)
        logits = logits.masked_fill(ignored, float("-inf"))
        logits = logits - torch.diag(logits.new_full((len(x),), scale * margin))
        forward = functional.cross_entropy(logits, labels)
        backward = functional.cross_entropy(logits.T, labels)
        total = total + (forward + backward) / 2
    return total / len(sizes)
