"""A run that is interrupted and gone on with has to end as one that was not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import Recipe
from training.learner import Learner
from training.trainer import train


class InterruptedRunError(Exception):
    pass


def assert_resumed_like_uninterrupted(
    recipe: Recipe, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, torch.Tensor]]:
    """Compare the last checkpoints, tensor by tensor; return one. The run is cut at its first checkpoint."""
    whole, cut = folder / "whole", folder / "cut"
    train(recipe, whole, data, progress=False)
    (cut / "run").mkdir(parents=True)
    # The tokenizers library breaks ties between merges at random: both runs start from the same one.
    if (whole / "run" / "tokenizer.json").exists():  # unless the student has its own
        shutil.copy(whole / "run" / "tokenizer.json", cut / "run")
    checkpoint = Learner.checkpoint

    def save_and_stop(*arguments: Any) -> None:
        checkpoint(*arguments)
        raise InterruptedRunError

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "checkpoint", save_and_stop)
        with pytest.raises(InterruptedRunError):
            train(recipe, cut, data, progress=False)
    train(recipe, cut, data, progress=False)
    one, other = (torch.load(out / "run" / "checkpoint.pt", weights_only=True) for out in (whole, cut))
    for part in ("model", "objective"):
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), name
    found: dict[str, dict[str, torch.Tensor]] = one
    return found
