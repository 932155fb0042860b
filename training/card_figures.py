"""The figures of a model, out of the JSON files that `embedsvc evaluate` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import read_json
from training.evaluation.report import interval_text


@dataclass(frozen=True)
class TaskFigures:
    """What one report says of one model: a figure's name, its mean over the languages, its interval."""

    task: str
    protocol: str
    languages: int
    of_source: bool  # measured on the model before it was exported
    means: tuple[tuple[str, float | None, str], ...]


def read_figures(paths: Sequence[Path], own: str, source: str) -> list[TaskFigures]:
    """Return the figures that files hold of the model with the fingerprint ``own``, else ``source``.

    A file is the report.json of a run or that of one task. Raises InvalidInputError naming the models that a
    file has figures of, where it has none of this one.
    """
    found: list[TaskFigures] = []
    for path in paths:
        reports = _reports(path)
        ours = [one for one in reports if one["fingerprint"] == own]
        ours = ours or [one for one in reports if one["fingerprint"] == source]
        if not ours:
            known = ", ".join(dict.fromkeys(f"{one['model']} ({one['fingerprint']})" for one in reports))
            raise InvalidInputError(
                f"{path} has figures of {known or 'no model'}; this one is {own}, made from {source}",
                param="figures",
            )
        found += [_figures(one, of_source=one["fingerprint"] != own) for one in ours]
    return found


def _reports(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    reports = (
        [content] if "task" in content else [r for of in content.get("reports", {}).values() for r in of]
    )
    needed = {"task", "protocol", "model", "fingerprint", "rows", "mean", "mean_intervals", "counts"}
    for report in reports:
        if not needed <= report.keys():
            raise InvalidInputError(
                f"{path} is no report of `embedsvc evaluate`: {', '.join(sorted(needed - report.keys()))} "
                "missing",
                param="figures",
            )
    return reports


def _figures(report: dict[str, Any], *, of_source: bool) -> TaskFigures:
    means = tuple(
        (name, mean, interval_text(tuple(report["mean_intervals"][name])))
        if report["mean_intervals"].get(name) and None not in report["mean_intervals"][name]
        else (name, mean, "–")
        for name, mean in report["mean"].items()
        if name not in report["counts"]
    )
    return TaskFigures(report["task"], report["protocol"], len(report["rows"]), of_source, means)
