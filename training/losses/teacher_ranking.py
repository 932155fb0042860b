"""Rank the teacher's English vectors for each text of a pair: contrast and distillation in one."""

from __future__ import annotations

import torch

from training.loss_config import TeacherRankingConfig
from training.losses.pairs import EmbeddedPairs
from training.losses.ranking import RankingScale, ranking
from training.losses.translation_ranking import unit, warm


def teacher_ranking(pairs: EmbeddedPairs, config: TeacherRankingConfig) -> torch.Tensor:
    """Return the ranking loss of both sides against the teacher's vectors of the batch's English texts.

    The vectors ranked are fixed, so the student moves into the teacher's space and the two sides of a
    pair meet there. English texts relate to each other as their translations do.
    """
    how = RankingScale(config.scale, warm(config.margin, config.margin_warmup_steps, pairs.step))
    candidates = pairs.candidates
    if candidates.teacher is None:
        raise ValueError("this loss needs a teacher")
    sides = ((pairs.source, candidates.forward), (pairs.target, candidates.backward))
    taught = unit(candidates.teacher)
    losses = [ranking(unit(pairs.in_teacher_space(side)), taught, related, how) for side, related in sides]
    return torch.stack(losses).mean()
