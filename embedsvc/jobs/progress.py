"""How far a job is: written by its process, read by servers. A file that is replaced, never half written."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from embedsvc.mining.progress import Step

PROGRESS = "progress.json"
_EVERY_S = 0.25


class Stage(BaseModel):
    """One stage of this attempt; ``first`` is what was done already when it began, ``seconds`` since then."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    done: int
    total: int
    unit: str
    first: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Units per second since the stage began; None while that says nothing."""
        return (
            (self.done - self.first) / self.seconds if self.seconds > 0 and self.done > self.first else None
        )

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end of the stage at this rate; None where nobody knows."""
        return (self.total - self.done) / self.rate if self.rate and self.total >= self.done else None


class Progress(BaseModel):
    """The stages so far: all but the last are finished."""

    model_config = ConfigDict(extra="forbid")

    stages: list[Stage] = []


class ProgressFile:
    """Takes steps, often, and writes them down now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = Progress()
        self._began = self._written = time.monotonic()

    def report(self, step: Step) -> None:
        """Note a step; a new stage is written at once."""
        now = time.monotonic()
        stages = self._progress.stages
        is_new = not stages or stages[-1].stage != step.stage
        if is_new:
            self._began = now
            stages.append(
                Stage(
                    stage=step.stage,
                    done=step.done,
                    total=step.total,
                    unit=step.unit,
                    first=step.done,
                    seconds=0.0,
                )
            )
        stage = stages[-1]
        stage.done, stage.total, stage.seconds = step.done, step.total, now - self._began
        if is_new or now - self._written >= _EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the progress; a full disk is no reason to end the work."""
        self._written = time.monotonic()
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(self._progress.model_dump_json())
            temporary.replace(self._path)


def read_progress(folder: Path) -> Progress:
    """Return the progress of the job in a folder; without stages when it has not begun."""
    try:
        return Progress.model_validate_json((folder / PROGRESS).read_bytes())
    except (OSError, ValidationError):
        return Progress()
