"""What token-level losses see: the states of every token of both sides, clean and with tokens masked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

NOT_MASKED = -100  # no label: as torch's cross entropy ignores it


@dataclass(frozen=True)
class TokenStates:
    """States of B padded texts.

    ids: (B, L) int64, as the student read them. text: (B, L) bool, neither padding nor a special token.
    states: (B, L, hidden), differentiable. labels: (B, L), the true id where a token was masked, else
    NOT_MASKED; None where nothing was masked.
    """

    ids: torch.Tensor
    text: torch.Tensor
    states: torch.Tensor
    labels: torch.Tensor | None = None

    def __getitem__(self, rows: slice) -> TokenStates:
        """Return some of the texts."""
        labels = None if self.labels is None else self.labels[rows]
        return TokenStates(self.ids[rows], self.text[rows], self.states[rows], labels)

    @property
    def masked(self) -> torch.Tensor:
        """(B, L) bool: where a token has to be guessed."""
        if self.labels is None:
            raise ValueError("nothing is masked in these texts")
        return self.labels != NOT_MASKED

    @property
    def answers(self) -> torch.Tensor:
        """(masked,): the true ids of the masked tokens, text by text."""
        mask = self.masked
        assert self.labels is not None
        return self.labels[mask]


@dataclass(frozen=True)
class TokenSides:
    """Both sides of B pairs; those masked only where a loss needs them.

    vocabulary: (ids, hidden), the student's own token vectors, by which heads tell tokens apart.
    """

    source: TokenStates
    target: TokenStates
    vocabulary: torch.Tensor
    masked_source: TokenStates | None = None
    masked_target: TokenStates | None = None

    @property
    def masked(self) -> tuple[TokenStates, TokenStates]:
        """The masked source and target."""
        if self.masked_source is None or self.masked_target is None:
            raise ValueError("this loss needs masked texts")
        return self.masked_source, self.masked_target
