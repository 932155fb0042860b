"""The evaluation of all models on the same items.    python -m train.judged JOB.json

Each report is kept with its items beside the model's other files, so that no model is evaluated twice. Only
the pairs of the job are compared, by the main figure of each task.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedsvc import load_encoder
from training.evaluation import TASKS, Report
from training.evaluation.pages import Run
from training.evaluation.resampling import paired_difference
from training.evaluation.run import check_data


def judged(task: str, model: Path, data: Path, out: Path) -> Report:
    """Return the report of a model, which is read where it was made before."""
    kept = out / f"{task}.{model.name}.pickle"
    encoder = load_encoder(model)
    if kept.exists():
        report: Report = pickle.loads(kept.read_bytes())
        if report.fingerprint == encoder.fingerprint:
            return report
    report = TASKS[task](encoder, data)
    report.write(out)
    kept.write_bytes(pickle.dumps(report))
    print(f"{task} {report.model}: {report.main} {report.mean[report.main]:.2f}", flush=True)
    return report


def difference(first: Report, second: Report) -> dict[str, Any]:
    """Return the difference of the main figures, first less second, with its interval and p-value."""
    ours, theirs = ({row: of[report.main] for row, of in report.items.items()} for report in (first, second))
    return {
        "task": first.task,
        "first": first.model,
        "second": second.model,
        **asdict(paired_difference(ours, theirs, aligned=first.aligned)),
    }


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    data, out = Path(job["data"]), Path(job["out"])
    check_data(job["tasks"], data)
    out.mkdir(parents=True, exist_ok=True)
    reports = {
        task: [judged(task, Path(model), data, out) for model in job["models"]] for task in job["tasks"]
    }
    Run(reports, []).write(out)
    differences = []
    for of in reports.values():
        by_name = {report.model: report for report in of}
        differences += [difference(by_name[a], by_name[b]) for a, b in job["pairs"]]
    (out / "differences.json").write_text(json.dumps(differences, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
