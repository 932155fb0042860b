"""What every loss sees: the vectors of a batch of pairs, whichever student made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from training.losses.tokens import TokenSides

Head = TypeVar("Head", bound=torch.nn.Module)


@dataclass(frozen=True)
class Candidates:
    """What the batch is ranked against: with several processes, the texts of all of them.

    source, target: (C, dim). forward, backward: int8 (B, C), the relation of each own source to each
    target, and of each own target to each source (`training.relations`). teacher: (C, teacher's dim).
    """

    source: torch.Tensor
    target: torch.Tensor
    forward: torch.Tensor
    backward: torch.Tensor
    teacher: torch.Tensor | None = None


@dataclass(frozen=True)
class MomentumKeys:
    """Vectors that a slow copy of the student made, without gradients.

    vectors: (C + K, dim), first those of the batch's targets, of all processes, then the queue of earlier
    ones. relations: int8 (B, C + K), of each own source to each of them.
    """

    vectors: torch.Tensor
    relations: torch.Tensor


@dataclass(frozen=True)
class ScoredPassages:
    """n passages of each query, and how well the teacher says they answer it; the queries are the sources.

    vectors: (B, n, dim), differentiable. scores: (B, n), any scale. entry: (B,), equal for one query with
    the same passages in the same order, be it in other languages.
    """

    vectors: torch.Tensor
    scores: torch.Tensor
    entry: torch.Tensor


@dataclass(frozen=True)
class Negatives:
    """Mined texts without a translation among the candidates, for rankings to have more to tell apart.

    target: (N, dim), for sources to be ranked against. source: (M, dim), for targets. forward int8 (B, N),
    backward int8 (B, M): as in `Candidates`; nothing is positive.
    """

    source: torch.Tensor
    target: torch.Tensor
    forward: torch.Tensor
    backward: torch.Tensor

    def prefix(self, size: int) -> Negatives:
        """Return the same with the first ``size`` dimensions only."""
        return replace(self, source=self.source[:, :size], target=self.target[:, :size])


@dataclass(frozen=True)
class EmbeddedPairs:
    """Vectors of B pairs, of any norm; row i of ``source`` translates row i of ``target``.

    source, target: (B, dim), differentiable. relations: int8 (B, B), `training.relations`.
    step: the number of the batch, from 0. teacher: (B, teacher's dim), the teacher's vector of each
    English text. into_teacher: (dim, teacher's dim), learnt; None where both have one dimension.
    others: the candidates of all processes; None where there is only this one. negatives: mined ones.
    keys, passages, tokens: what only some losses look at. heads: by the kind of the loss that they belong
    to; they are trained with the student and are no part of it.
    """

    source: torch.Tensor
    target: torch.Tensor
    relations: torch.Tensor
    step: int = 0
    teacher: torch.Tensor | None = None
    into_teacher: torch.Tensor | None = None
    others: Candidates | None = None
    negatives: Negatives | None = None
    keys: MomentumKeys | None = None
    passages: ScoredPassages | None = None
    tokens: TokenSides | None = None
    heads: Mapping[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def candidates(self) -> Candidates:
        """What to rank against: the batch itself, or that of all processes."""
        if self.others is not None:
            return self.others
        return Candidates(self.source, self.target, self.relations, self.relations.T, self.teacher)

    @property
    def ranked(self) -> Candidates:
        """The candidates, and behind them the mined negatives: no longer pairs, side by side."""
        candidates, more = self.candidates, self.negatives
        if more is None:
            return candidates
        return Candidates(
            source=torch.cat([candidates.source, more.source]),
            target=torch.cat([candidates.target, more.target]),
            forward=torch.cat([candidates.forward, more.forward], dim=1),
            backward=torch.cat([candidates.backward, more.backward], dim=1),
        )

    @property
    def taught(self) -> torch.Tensor:
        """The teacher's vectors."""
        if self.teacher is None:
            raise ValueError("this loss needs a teacher")
        return self.teacher

    @property
    def momentum_keys(self) -> MomentumKeys:
        """The vectors of the slow copy."""
        if self.keys is None:
            raise ValueError("this loss needs a momentum queue")
        return self.keys

    @property
    def scored(self) -> ScoredPassages:
        """The passages with the teacher's scores."""
        if self.passages is None:
            raise ValueError("this loss needs passages with scores")
        return self.passages

    @property
    def token_sides(self) -> TokenSides:
        """The states of every token."""
        if self.tokens is None:
            raise ValueError("this loss needs token states")
        return self.tokens

    def head(self, kind: str, made: type[Head]) -> Head:
        """The head of a loss."""
        found = self.heads.get(kind)
        if not isinstance(found, made):
            raise ValueError(f"loss {kind!r} needs its head")
        return found

    def in_teacher_space(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (B, teacher's dim): the student's vectors, to be compared with `taught`."""
        return vectors if self.into_teacher is None else vectors @ self.into_teacher

    def prefix(self, size: int) -> EmbeddedPairs:
        """Return the same pairs with the first ``size`` dimensions of the student's vectors only.

        The teacher's are cut alike where they have the student's dimension: after a projection on
        principal directions the first ones hold the most.
        """
        if size == self.source.shape[1]:
            return self
        others, teacher, into = self.others, self.teacher, self.into_teacher
        if others is not None:
            others = replace(others, source=others.source[:, :size], target=others.target[:, :size])
            if into is None and others.teacher is not None:
                others = replace(others, teacher=others.teacher[:, :size])
        if into is not None:
            into = into[:size]
        elif teacher is not None:
            teacher = teacher[:, :size]
        keys, passages = self.keys, self.passages
        if keys is not None:
            keys = replace(keys, vectors=keys.vectors[:, :size])
        if passages is not None:
            passages = replace(passages, vectors=passages.vectors[:, :, :size])
        return replace(
            self,
            source=self.source[:, :size],
            target=self.target[:, :size],
            others=others,
            negatives=self.negatives and self.negatives.prefix(size),
            keys=keys,
            passages=passages,
            teacher=teacher,
            into_teacher=into,
        )
