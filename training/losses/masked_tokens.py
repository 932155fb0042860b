"""Guess masked tokens from their own text (BERT, https://arxiv.org/abs/1810.04805; a term of LASER3's loss).

LASER3: https://arxiv.org/abs/2205.12654.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import MaskedTokensConfig
from training.losses.heads import TokenGuess
from training.losses.pairs import EmbeddedPairs
from training.losses.tokens import TokenStates

_SIDES = {"both": (0, 1), "english": (0,), "other": (1,)}


def masked_tokens(pairs: EmbeddedPairs, config: MaskedTokensConfig) -> torch.Tensor:
    """Return the mean cross entropy of the masked tokens of a side, sides averaged."""
    head = pairs.head("masked_tokens", TokenGuess)
    both = pairs.token_sides.masked
    losses = [guess_loss(head, both[side], pairs.token_sides.vocabulary) for side in _SIDES[config.sides]]
    return torch.stack(losses).mean()


def guess_loss(
    guess: TokenGuess, side: TokenStates, vocabulary: torch.Tensor, *, states: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean cross entropy of a side's masked tokens; 0 where none is masked.

    states: (B, L, hidden) to guess from, in place of the side's own.
    """
    answers = side.answers
    logits = guess((side.states if states is None else states)[side.masked], vocabulary)
    return functional.cross_entropy(logits, answers, reduction="sum") / max(len(answers), 1)
