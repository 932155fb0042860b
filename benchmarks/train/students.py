"""The two kinds of student, and what each side is told to do with them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Values = dict[str, Any]
LOSSES = ("mnrl", "mse")  # of the stock side; ours without a teacher is compared with the first
_SEED = 1
MAX_TOKENS = 64  # of transformers, with the special ones, on both sides


@dataclass(frozen=True)
class Budget:
    """How long is trained, at which learning rates on the stock side."""

    steps: int
    batch: int
    rates: Sequence[float]
    threads: int


class Students(Protocol):
    """One kind of student."""

    prefix: str
    budget: Budget

    def recipe(self, *, steps: int) -> Values:
        """Return our recipe; `train.ours` leaves out the losses that need a teacher where it is told so."""

    def start(self, tokenizer: Path) -> Values:
        """Return what the stock side begins with."""

    @property
    def dimension(self) -> int: ...

    @property
    def bf16(self) -> bool:
        """Whether both sides compute in bfloat16 where they can."""

    @property
    def teacher(self) -> Values:
        """The section [teacher] of a recipe."""


def names(students: Students, loss: str) -> tuple[str, list[str]]:
    """Return the name of our model, and those of the stock side's, one per rate."""
    ours = f"{students.prefix}ours" + ("-distilled" if loss == "mse" else "")
    return ours, [f"{students.prefix}stock-{loss}-{rate:g}" for rate in students.budget.rates]


def stock_job(students: Students, loss: str, rate: float, tokenizer: Path) -> Values:
    """Return the job of `train/stock.py`, but for the data."""
    return {
        "loss": loss,
        "rate": rate,
        "steps": students.budget.steps,
        "batch": students.budget.batch,
        "dimension": students.dimension,
        "bf16": students.bf16,
        "teacher": None,
        "no_duplicates": loss == "mnrl",
        "seed": _SEED,
        **students.start(tokenizer),
    }


@dataclass(frozen=True)
class Static:
    """Tables by our recipe file, which says all but the data, the steps and the batch."""

    budget: Budget
    file: Path
    teacher_model: Path
    prefix: str = ""

    @property
    def _file(self) -> Values:
        return tomllib.loads(self.file.read_text(encoding="utf-8"))

    def recipe(self, *, steps: int) -> Values:
        values = self._file
        values["data"]["pairs"] = ["pairs.tsv"]
        values["schedule"] |= _schedule(self.budget, steps)
        return {**values, "teacher": self.teacher}

    @property
    def teacher(self) -> Values:
        return {**self._file["teacher"], "model": str(self.teacher_model)}

    @property
    def dimension(self) -> int:
        return int(self._file["model"]["dimension"])

    @property
    def bf16(self) -> bool:
        return self._file["schedule"].get("precision") == "bf16"

    def start(self, tokenizer: Path) -> Values:
        return {"tokenizer": str(tokenizer), "transformer": None, "max_tokens": None}


@dataclass(frozen=True)
class Transformer:
    """A transformer that both sides begin with; ours learns at the first of the rates."""

    budget: Budget
    folder: Path
    dimension: int
    teacher_model: Path
    teacher_dimension: int
    prefix: str = "transformer-"
    bf16: bool = False

    def recipe(self, *, steps: int) -> Values:
        ranking = {"kind": "translation_ranking", "scale": 20.0, "margin": 0.3}
        distillation = {"kind": "distillation", "distance": "cosine", "weight": 5.0}
        return {
            "name": "transformer",
            "data": {"pairs": ["pairs.tsv"], "max_tokens": MAX_TOKENS - 2},
            "model": {"transformer": str(self.folder)},
            "losses": [ranking, distillation],
            "teacher": self.teacher,
            "schedule": {**_schedule(self.budget, steps), "learning_rate": self.budget.rates[0]},
        }

    @property
    def teacher(self) -> Values:
        projection = "none" if self.dimension == self.teacher_dimension else "pca"
        return {"model": str(self.teacher_model), "precision": "int8", "projection": projection}

    def start(self, tokenizer: Path) -> Values:  # noqa: ARG002  (it has its own)
        return {"tokenizer": None, "transformer": str(self.folder), "max_tokens": MAX_TOKENS}


def _schedule(budget: Budget, steps: int) -> Mapping[str, int]:
    return {
        "steps": steps,
        "batch": budget.batch,
        "threads": budget.threads,
        "warmup_steps": steps // 10,
        "evaluate_every": steps,
        "checkpoint_every": steps,
    }
