"""Losses, one file each and one line in `LOSSES`; every loss is a plain function of embedded pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from training.losses.alignment import alignment
from training.losses.cross_unmasking import cross_unmasking
from training.losses.distillation import distillation
from training.losses.koleo import koleo
from training.losses.masked_tokens import masked_tokens
from training.losses.momentum_ranking import momentum_ranking
from training.losses.pairs import Candidates, EmbeddedPairs
from training.losses.representation_translation import representation_translation
from training.losses.score_distillation import score_distillation
from training.losses.self_distillation import self_distillation
from training.losses.teacher_ranking import teacher_ranking
from training.losses.translation_ranking import translation_ranking

# By the kind that a recipe names; the second argument is that kind's section in `training.loss_config`.
LOSSES: dict[str, Callable[[EmbeddedPairs, Any], torch.Tensor]] = {
    "translation_ranking": translation_ranking,
    "teacher_ranking": teacher_ranking,
    "distillation": distillation,
    "alignment": alignment,
    "koleo": koleo,
    "momentum_ranking": momentum_ranking,
    "score_distillation": score_distillation,
    "masked_tokens": masked_tokens,
    "cross_unmasking": cross_unmasking,
    "representation_translation": representation_translation,
    "self_distillation": self_distillation,
}

__all__ = ["LOSSES", "Candidates", "EmbeddedPairs", "translation_ranking"]
