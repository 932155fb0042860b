"""What token-level losses train beside the student: small networks that are no part of the exported model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

_SPREAD = 0.02  # of a transformer's first weights


@dataclass(frozen=True)
class HeadShape:
    """``hidden`` is the width of the student's token states, ``dimension`` that of its vectors."""

    hidden: int
    dimension: int
    vocabulary: int
    layers: int
    heads: int


class TokenGuess(nn.Module):
    """Tell the tokens of states by the student's own token vectors (tied weights) and a bias for each."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        """Return logits (n, ids) of states (n, hidden), given the token vectors (ids, hidden)."""
        logits: torch.Tensor = self.turn(states) @ vocabulary.T + self.bias
        return logits


class UnmaskingHead(nn.Module):
    """Guess tokens of one text from its masked states and the vector of another one."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.sentence = nn.Linear(shape.dimension, shape.hidden)
        self.layers = _layers(shape)
        self.guess = TokenGuess(shape.hidden, shape.vocabulary)

    def forward(self, states: torch.Tensor, text: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        """Return states (B, L, hidden) that have seen those of the text and the sentence's, nothing else.

        states: (B, L, hidden). text: (B, L) bool, the tokens to be seen: special ones have read the text
        before it was masked no more than the others, but would let its own vector in. sentence: (B, dim).
        """
        first = self.sentence(sentence).unsqueeze(1)
        seen = torch.cat([torch.ones_like(text[:, :1]), text], dim=1)
        mixed: torch.Tensor = self.layers(torch.cat([first, states], dim=1), src_key_padding_mask=~seen)
        return mixed[:, 1:]


class TranslationHead(nn.Module):
    """Write all tokens of one text, at their places, from the states of its translation."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.blank = nn.Parameter(torch.randn(shape.hidden) * _SPREAD)
        self.layers = _layers(shape)
        self.guess = TokenGuess(shape.hidden, shape.vocabulary)

    def forward(self, states: torch.Tensor, text: torch.Tensor, blanks: torch.Tensor) -> torch.Tensor:
        """Return states (B, T, hidden), one for each token to be written.

        states: (B, L, hidden) of the translation. text: (B, L) bool, the tokens to be read.
        blanks: (B, T) bool, the places of tokens to be written.
        """
        where = places(blanks.shape[1], states.shape[2]).to(states)
        written = (self.blank + where).expand(len(states), -1, -1)
        seen = torch.cat([text, blanks], dim=1)
        mixed: torch.Tensor = self.layers(torch.cat([states, written], dim=1), src_key_padding_mask=~seen)
        return mixed[:, states.shape[1] :]


class MultiFunctionHead(nn.Module):
    """BGE-M3's sparse weight of each token and its vector for late interaction."""

    def __init__(self, hidden: int, dimension: int) -> None:
        super().__init__()
        self.sparse = nn.Linear(hidden, 1)
        self.multi_vector = nn.Linear(hidden, dimension)


def _layers(shape: HeadShape) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        shape.hidden,
        shape.heads,
        dim_feedforward=4 * shape.hidden,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
    )
    return nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)


def places(number: int, width: int) -> torch.Tensor:
    """Return (number, width): each place as sines and cosines, so that there is no longest text."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(number)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
