"""`embedsvc evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedsvc.cli.options import INPUT_FOLDER, OUTPUT_FOLDER

if TYPE_CHECKING:
    from embedsvc.encoder import Encoder


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option(
    "--model", "models", multiple=True, help="Model folder or hub id; several compare.  [default: bundled]"
)
@click.option(
    "--data",
    type=INPUT_FOLDER,
    required=True,
    help="Folder with the test sets: tatoeba/, flores/, ntrex/, xquadr/, bucc/, sts/, retrieval/, mteb/.",
)
@click.option(
    "--out",
    type=OUTPUT_FOLDER,
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the reports: JSON, Markdown and one HTML page.",
)
def evaluate(tasks: tuple[str, ...], models: tuple[str, ...], data: Path, out: Path) -> None:
    """Evaluate models on TASKS: tatoeba, xsim, xsim++, bucc, xquad-r, retrieval, sts, alignment, mteb:TASK.

    A task of mteb is read from mteb/TASK in --data, a copy of its dataset's repository on the hub.
    Several models are compared on the same items. Writes a report per task and model, and report.json,
    report.md and report.html of the run.
    """
    from embedsvc.encoder import load_encoder
    from training.evaluation.report import Report
    from training.evaluation.run import evaluate_models

    def tell(report: Report, path: Path) -> None:
        figures = ", ".join(
            f"{name} {report.cell(name, report.mean[name])}"
            for name in report.columns
            if name not in report.counts
        )
        click.echo(f"{report.task} {report.model}: {figures} (mean of {len(report.rows)} languages; {path})")

    def opened() -> Iterator[Encoder]:
        """All models at once, but not before the tasks and their data are found, which is quicker."""
        yield from [load_encoder(model) for model in models or (None,)]

    for path in evaluate_models(opened(), tasks, data, out, tell=tell):
        click.echo(f"wrote {path}")
