"""Evaluations that need no network: one file each, one line in `TASKS`. numpy only, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embedsvc.encoder import Encoder
from training.evaluation.alignment import evaluate_alignment
from training.evaluation.bucc import evaluate_bucc
from training.evaluation.report import Report
from training.evaluation.retrieval import evaluate_retrieval
from training.evaluation.sts import evaluate_sts
from training.evaluation.tatoeba import evaluate_tatoeba
from training.evaluation.xquad_r import evaluate_xquad_r
from training.evaluation.xsim import evaluate_xsim
from training.evaluation.xsim_plus import evaluate_xsim_plus

Evaluate = Callable[[Encoder, Path], Report]

TASKS: dict[str, Evaluate] = {
    "tatoeba": evaluate_tatoeba,
    "xsim": evaluate_xsim,
    "xsim++": evaluate_xsim_plus,
    "bucc": evaluate_bucc,
    "xquad-r": evaluate_xquad_r,
    "retrieval": evaluate_retrieval,
    "sts": evaluate_sts,
    "alignment": evaluate_alignment,
}

__all__ = ["TASKS", "Evaluate", "Report"]
