"""Progress of a stage after another on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from embedsvc.mining.progress import Step


class TerminalProgress:
    """A bar per stage, with rate and estimate; called with a `Step`, closed by ``with``."""

    def __init__(self, wanted: bool | None) -> None:
        self._show = wanted if wanted is not None else sys.stderr.isatty()
        self._bar: Any = None
        self._stage = ""

    def __call__(self, step: Step) -> None:
        if not self._show:
            return
        if step.stage != self._stage:
            self._close()
            self._stage = step.stage
            self._bar = tqdm(
                total=step.total or None, initial=step.done, desc=step.stage, unit=f" {step.unit}"
            )
        self._bar.total = step.total or None
        self._bar.update(step.done - self._bar.n)

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
