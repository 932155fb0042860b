"""Representation translation (RTL of DAP, https://arxiv.org/abs/2305.09148)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import RepresentationTranslationConfig
from training.losses.heads import TranslationHead
from training.losses.pairs import EmbeddedPairs
from training.losses.tokens import TokenStates


def representation_translation(pairs: EmbeddedPairs, config: RepresentationTranslationConfig) -> torch.Tensor:
    """Return the mean cross entropy of all tokens of one side, written from the token states of the other.

    Special tokens are neither read nor written: the sentence's own vector is no way around the tokens.
    """
    head = pairs.head("representation_translation", TranslationHead)
    sides = pairs.token_sides
    ways = {
        "to_english": [(sides.target, sides.source)],
        "from_english": [(sides.source, sides.target)],
    }
    ways["both"] = [*ways["to_english"], *ways["from_english"]]
    losses = [_written(head, read, true, sides.vocabulary) for read, true in ways[config.directions]]
    return torch.stack(losses).mean()


def _written(
    head: TranslationHead, read: TokenStates, true: TokenStates, vocabulary: torch.Tensor
) -> torch.Tensor:
    states = head(read.states, read.text, true.text)[true.text]
    return functional.cross_entropy(head.guess(states, vocabulary), true.ids[true.text])
