"""Evaluation of a run while it goes on, of the model folder that it would end with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedsvc.encoder import load_encoder
from embedsvc.textfiles import write_json
from training.evaluation.report import Report
from training.evaluation.run import check_data, evaluator
from training.evaluation_config import HELD_OUT, EvaluationConfig
from training.held_out import HeldOut, ranking_accuracy

if TYPE_CHECKING:
    from training.student import Student

_FIGURE = "best.json"  # in the folder of the best model: which figure, at which step


def check_test_sets(config: EvaluationConfig | None, data: Path) -> None:
    """Raise what a task raises that does not find its data: before anything is read or trained."""
    if config is not None:
        check_data(dict.fromkeys([*config.tasks, *config.during]), data / config.data)


class RunEvaluation:
    """What is measured at every evaluation of a run, and the best model so far.

    ``run/best`` is a model folder like the run's own; ``run/evaluation`` has the reports of the end.
    """

    def __init__(self, config: EvaluationConfig | None, held_out: HeldOut, data: Path, run: Path) -> None:
        self._config = config
        self._held_out = held_out
        self._data = data
        self._run = run

    def figures(self, student: Student[Any], step: int, *, last: bool) -> dict[str, float]:
        """Return the held-out accuracy and, as ``task.figure``, each task's figures, means over languages.

        Writes the reports of the last evaluation, and keeps the model if it is the best so far.
        """
        figures = {HELD_OUT: ranking_accuracy(student.vectors, self._held_out)}
        config = self._config
        tasks = (
            [] if config is None else list(dict.fromkeys([*config.during, *(config.tasks if last else [])]))
        )
        if config is None or not (tasks or config.best):
            return figures
        folder = self._run / "evaluated"
        shutil.rmtree(folder, ignore_errors=True)
        student.write(folder)
        reports = self._reports(folder, tasks, config, last=last)
        if config.best is not None:
            value, lower = _figure(config.best, figures, reports)
            chosen = {"figure": config.best, "value": value, "step": step}
            _keep_if_best(folder, self._run / "best", chosen, lower_is_better=lower)
        shutil.rmtree(folder, ignore_errors=True)
        return figures | {
            f"{task}.{column}": report.mean[column]
            for task, report in reports.items()
            for column in report.columns
            if column not in report.counts
        }

    def _reports(
        self, folder: Path, tasks: Iterable[str], config: EvaluationConfig, *, last: bool
    ) -> dict[str, Report]:
        encoder, data, name = load_encoder(folder), self._data / config.data, self._run.parent.name
        reports = {task: replace(evaluator(task)(encoder, data), model=name) for task in tasks}
        if last:
            for report in reports.values():
                report.write(self._run / "evaluation")
        return reports


def _keep_if_best(folder: Path, best: Path, chosen: dict[str, Any], *, lower_is_better: bool) -> None:
    """Put the model in place of the best so far, if it is better; there always is a whole one."""
    replaced = best.with_name(f"{best.name}.replaced")
    if replaced.exists() and not best.exists():  # killed between the two renames
        replaced.rename(best)
    file, sign, value = best / _FIGURE, -1 if lower_is_better else 1, chosen["value"]
    before = json.loads(file.read_text(encoding="utf-8"))["value"] if file.exists() else -sign * inf
    if isnan(value) or sign * value <= sign * before:
        return
    write_json(folder / _FIGURE, chosen)
    shutil.rmtree(replaced, ignore_errors=True)
    if best.exists():
        best.rename(replaced)
    folder.rename(best)
    shutil.rmtree(replaced, ignore_errors=True)


def _figure(name: str, figures: dict[str, float], reports: dict[str, Report]) -> tuple[float, bool]:
    """Return the figure that decides, and whether less of it is better."""
    if name == HELD_OUT:
        return figures[HELD_OUT], False
    report = reports[name]
    return report.mean[report.main], report.better[report.main] == "lower"
