"""What the losses of a recipe need beside the student, made for that student."""

from __future__ import annotations

from typing import Any

import torch

from training.config import Recipe
from training.momentum import MomentumQueue
from training.objective import Aids
from training.student import Student


def needed_aids(recipe: Recipe, student: Student[Any]) -> Aids:
    """Return the aids that the recipe's losses need."""
    wanted = [loss.needs.momentum for loss in recipe.objective if loss.needs.momentum]
    if not wanted:
        return Aids()
    places = torch.zeros(wanted[0].queue, student.dimension, device=student.device)
    return Aids(momentum=MomentumQueue(student.slow_copy(), wanted[0], places))
