"""What every loss sees: the vectors of a batch of pairs, whichever student made them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


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
    """

    source: torch.Tensor
    target: torch.Tensor
    relations: torch.Tensor
    step: int = 0
    teacher: torch.Tensor | None = None
    into_teacher: torch.Tensor | None = None
    others: Candidates | None = None
    negatives: Negatives | None = None

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
        return replace(
            self,
            source=self.source[:, :size],
            target=self.target[:, :size],
            others=others,
            negatives=self.negatives and self.negatives.prefix(size),
            teacher=teacher,
            into_teacher=into,
        )
