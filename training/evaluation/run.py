"""Run tasks with models, and write what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NoReturn, cast

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from training.evaluation import TASKS, Evaluate
from training.evaluation.comparison import compare
from training.evaluation.mteb_adapter import PREFIX, check_mteb_task, evaluate_mteb
from training.evaluation.pages import Run
from training.evaluation.report import Report

Tell = Callable[[Report, Path], None]


def check_tasks(tasks: Iterable[str]) -> None:
    """Raise InvalidInputError for an unknown task, naming the nearest one, or for one given twice.

    Raises MissingExtraError for a task of mteb without mteb.
    """
    seen: set[str] = set()
    for task in tasks:
        if task.startswith(PREFIX):
            check_mteb_task(task)
        elif task not in TASKS:
            near = get_close_matches(task, TASKS, n=1, cutoff=0)[0]
            raise InvalidInputError(
                f"task {task!r} is unknown; did you mean {near!r}? Choose from {', '.join(TASKS)} and "
                f"{PREFIX}TASK"
            )
        if task in seen:
            raise InvalidInputError(f"task {task!r} is given twice")
        seen.add(task)


def evaluator(task: str) -> Evaluate:
    """Return what evaluates a task that `check_tasks` accepts."""
    return partial(evaluate_mteb, task) if task.startswith(PREFIX) else TASKS[task]


class _DataFound(Exception):  # noqa: N818  (no error, but the wanted end of a probe)
    """Raised by the probe when the model is first needed: all that comes before has been found and read."""


class _Probe:
    """Stands in for a model to see whether a task finds its data."""

    def __getattr__(self, _: str) -> NoReturn:
        raise _DataFound


def check_data(tasks: Iterable[str], data: Path) -> None:
    """Raise what a task raises whose data are missing, before hours are spent on the others."""
    for task in tasks:
        with contextlib.suppress(_DataFound):
            evaluator(task)(cast(Encoder, _Probe()), data)


def evaluate_models(
    models: Iterable[Encoder], tasks: Sequence[str], data: Path, out: Path, *, tell: Tell
) -> list[Path]:
    """Evaluate each model on each task and write the reports into ``out``; return those of the whole run.

    ``tell`` is called with every report and its Markdown file as soon as it is written. Models of the same
    name are told apart by their fingerprints. Raises InvalidInputError for a model given twice.
    """
    check_tasks(tasks)
    check_data(tasks, data)
    reports: dict[str, list[Report]] = {task: [] for task in tasks}
    names: dict[str, str] = {}
    for encoder in models:
        name = _distinct_name(encoder, names)
        for task in tasks:
            report = replace(evaluator(task)(encoder, data), model=name)
            tell(report, report.write(out)[1])
            reports[task].append(report)
    comparisons = [comparison for of in reports.values() for comparison in compare(of)]
    return Run(reports, comparisons).write(out)


def _distinct_name(encoder: Encoder, names: dict[str, str]) -> str:
    """Return the model's name, with its fingerprint if another has the same; ``names`` remembers them."""
    if encoder.fingerprint in names:
        raise InvalidInputError(
            f"model {names[encoder.fingerprint]} is given twice; its vectors are the same"
        )
    taken = encoder.name in names.values()
    names[encoder.fingerprint] = f"{encoder.name}@{encoder.fingerprint[:8]}" if taken else encoder.name
    return names[encoder.fingerprint]
