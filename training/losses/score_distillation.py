"""Distil a cross-encoder's scores into several languages (Translate-Distill, https://arxiv.org/abs/2401.04810).

The language regulariser is that of multilingual Translate-Distill (https://arxiv.org/abs/2405.00977).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import ScoreDistillationConfig
from training.losses.pairs import EmbeddedPairs


def score_distillation(pairs: EmbeddedPairs, config: ScoreDistillationConfig) -> torch.Tensor:
    """Return the mean over queries of ``KL(softmax(a * teacher) || softmax(s * cos))`` over the n passages.

    Added to it, ``language_weight`` times the divergence between what the student makes of one query and
    the same passages in two languages, where the batch has them.
    """
    lists = pairs.scored
    query = functional.normalize(pairs.source, dim=1)
    passages = functional.normalize(lists.vectors, dim=2)
    student = (config.scale * torch.einsum("bd,bnd->bn", query, passages)).log_softmax(dim=1)
    teacher = (config.teacher_scale * lists.scores).log_softmax(dim=1)
    loss = divergence(teacher, student).mean()
    if config.language_weight:
        loss = loss + config.language_weight * between_languages(student, lists.entry)
    return loss


def divergence(true: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Return (rows,): the Kullback-Leibler divergence of two distributions given as logarithms, (rows, n)."""
    return (true.exp() * (true - of)).sum(dim=1)


def between_languages(student: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``(KL(p || q) + KL(q || p)) / 2`` over every two rows of one entry.

    student: (rows, n) logarithms. entry: (rows,), equal for one query with the same passages in the same
    order, in other languages. 0 where no entry comes twice.
    """
    same = torch.triu(entry[:, None] == entry[None, :], diagonal=1)
    first, second = same.nonzero(as_tuple=True)
    p, q = student[first], student[second]
    both = divergence(p, q) + divergence(q, p)
    return both.sum() / 2 / max(len(first), 1)
