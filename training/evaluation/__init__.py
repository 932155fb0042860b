"""Evaluations that need no network: one file each, one line in `TASKS`. numpy only, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embedsvc.encoder import Encoder
from training.evaluation.report import Report
from training.evaluation.tatoeba import evaluate_tatoeba
from training.evaluation.xsim import evaluate_xsim

Task = Callable[[Encoder, Path], Report]

TASKS: dict[str, Task] = {
    "tatoeba": evaluate_tatoeba,
    "xsim": evaluate_xsim,
}

__all__ = ["TASKS", "Report", "Task"]
