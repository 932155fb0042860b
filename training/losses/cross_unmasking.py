"""Cross-unmasking (MEXMA, https://arxiv.org/abs/2409.12737)."""

from __future__ import annotations

import torch

from training.loss_config import CrossUnmaskingConfig
from training.losses.heads import UnmaskingHead
from training.losses.masked_tokens import guess_loss
from training.losses.pairs import EmbeddedPairs


def cross_unmasking(pairs: EmbeddedPairs, config: CrossUnmaskingConfig) -> torch.Tensor:  # noqa: ARG001
    """Return the mean cross entropy of each side's masked tokens, given the other side's unmasked vector.

    With so many tokens masked the text alone does not tell them: its translation's vector has to, and the
    gradient reaches the student through the vector and through every token.
    """
    head = pairs.head("cross_unmasking", UnmaskingHead)
    sides = pairs.token_sides
    losses = []
    for side, other in zip(sides.masked, (pairs.target, pairs.source), strict=True):
        states = head(side.states, side.text, other)
        losses.append(guess_loss(head.guess, side, sides.vocabulary, states=states))
    return torch.stack(losses).mean()
