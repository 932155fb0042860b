"""The states that a run keeps: to go on from the last one, and to average several (`checkpoint_models`).

run/checkpoint.pt            the last one, where the recipe keeps one
run/checkpoints/<step>.pt    else the last ``schedule.keep_checkpoints``, each after so many steps
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embedsvc.errors import StorageError
from embedsvc.textfiles import atomic_write
from training.schedule_config import ScheduleConfig

_log = logging.getLogger(__name__)
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)
State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The states of the run in the folder ``run``."""

    run: Path
    schedule: ScheduleConfig

    def path(self, step: int) -> Path:
        """Return where the state after so many steps is written."""
        if self.schedule.keep_checkpoints == 1:
            return self.run / "checkpoint.pt"
        return self.run / "checkpoints" / f"{step}.pt"

    def kept(self) -> dict[int, Path]:
        """Return the files by their steps, ascending, where the recipe keeps several."""
        found = {int(path.stem): path for path in self.run.glob("checkpoints/*.pt") if path.stem.isdigit()}
        return dict(sorted(found.items()))

    def drop_old(self) -> None:
        """Remove all but the last ones that are due, and one that an interrupt has left behind them.

        One that was written where a run was stopped goes as soon as there is a later one, so that the same
        are kept as of a run that was not.
        """
        kept = self.kept()
        due = [step for step in kept if self.is_due(step)]
        wanted = {*due[-self.schedule.keep_checkpoints :], *list(kept)[-1:]}
        for step in kept.keys() - wanted:
            kept[step].unlink(missing_ok=True)

    def is_due(self, step: int) -> bool:
        """Say whether the recipe asks for a state after so many steps."""
        return step % self.schedule.checkpoint_every == 0 or step == self.schedule.steps

    def newest(self) -> State | None:
        """Return the last state that can be read, telling of others in the log; None where none was written.

        Raises StorageError when there are some, and none can be read.
        """
        several = self.schedule.keep_checkpoints > 1
        paths = [*self.kept().values()] if several else [self.path(0)] if self.path(0).exists() else []
        for path in reversed(paths):
            try:
                return read_state(path)
            except StorageError as error:
                if path == paths[0]:
                    raise
                _log.warning("%s; the one before is gone on from", error.message)
        return None


def read_state(path: Path) -> State:
    """Return what a checkpoint holds, on the processor; raise StorageError for a damaged file."""
    try:
        state: State = torch.load(path, weights_only=True, map_location="cpu")
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StorageError(f"{path} is damaged and cannot be read: {reason}") from error
    return state


def write_state(state: State, path: Path) -> None:
    """Write a checkpoint, whole or not at all; raise StorageError when there is no room."""
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch raises its own error on top of the file's
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise StorageError(
            f"{path} cannot be written: {reason}; an earlier checkpoint is kept, the same command goes on"
        ) from error
