"""The `train`, `evaluate` and `export` commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

if TYPE_CHECKING:
    from embedsvc.model_folder import Precision
    from training.parity import Parity


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Model folder to write."
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the recipe's data patterns are relative to.  [default: the recipe's own]",
)
@click.option("--teacher", help="Model folder or hub id to distil from, in place of the recipe's.")
@click.option("--student", help="Transformer to teach, folder or hub id, in place of the recipe's.")
@click.option("--progress/--no-progress", default=None, help="Show progress (default: on a terminal).")
def train(
    recipe: Path,
    out: Path,
    data: Path | None,
    teacher: str | None,
    student: str | None,
    progress: bool | None,
) -> None:
    """Train an encoder from RECIPE, a TOML file; called again, it goes on where it stopped."""
    from embedsvc.encoder import torch_installed
    from embedsvc.errors import MissingExtraError
    from training.config import read_recipe

    checked = read_recipe(recipe, teacher=teacher, student=student)
    if not torch_installed():
        raise MissingExtraError("training", "train")
    from training.processes import leads
    from training.trainer import train as run

    shown = sys.stderr.isatty() if progress is None else progress
    run(checked, out, data or recipe.parent, progress=shown)
    if leads():
        click.echo(f"wrote {out}; try: embedsvc serve --model {out}", err=True)


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option(
    "--model", "models", multiple=True, help="Model folder or hub id; several compare.  [default: bundled]"
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with the test sets: tatoeba/, flores/, ntrex/, xquadr/, bucc/, sts/, retrieval/.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the reports: JSON, Markdown and one HTML page.",
)
def evaluate(tasks: tuple[str, ...], models: tuple[str, ...], data: Path, out: Path) -> None:
    """Evaluate models on TASKS: tatoeba, xsim, xsim++, bucc, xquad-r, retrieval, sts, alignment.

    Several models are compared on the same items. Writes a report per task and model, and report.json,
    report.md and report.html of the run.
    """
    from embedsvc.encoder import load_encoder
    from training.evaluation.report import Report
    from training.evaluation.run import check_tasks, evaluate_models

    def tell(report: Report, path: Path) -> None:
        figures = ", ".join(
            f"{name} {report.cell(name, report.mean[name])}"
            for name in report.columns
            if name not in report.counts
        )
        click.echo(f"{report.task} {report.model}: {figures} (mean of {len(report.rows)} languages; {path})")

    check_tasks(tasks)
    encoders = [load_encoder(model) for model in models or (None,)]
    for path in evaluate_models(encoders, tasks, data, out, tell=tell):
        click.echo(f"wrote {path}")


@click.command()
@click.argument("model", required=False)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "int8", "int4"]),
    default="float32",
    show_default=True,
    help="Of a static model's table.",
)
@click.option("--onnx", help="Graphs of a transformer: float32, int8 or float32,int8.  [default: float32]")
@click.option("--dimensions", type=click.IntRange(min=1), help="Cut a static Matryoshka model to this size.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
def export(
    model: str | None,
    out: Path,
    dtype: Literal["float32", "int8", "int4"],
    onnx: str | None,
    dimensions: int | None,
    overwrite: bool,
) -> None:
    """Convert MODEL (default: the bundled one) into a folder for serving.

    Transformers become ONNX, checked against torch; static models become float32, int8 or int4 tables
    (the float32 folder opens in sentence-transformers too). An int8 graph is faster and a little
    less exact; its vectors do not depend on what else is in the batch.
    """
    from training.export import export_model

    report = export_model(
        model,
        out,
        dtype=dtype,
        onnx=None if onnx is None else cast("list[Precision]", onnx.split(",")),
        dimensions=dimensions,
        overwrite=overwrite,
    )
    click.echo(
        f"wrote {out}: {report.kind}, {report.dimension} dimensions, {report.bytes / 1e6:.1f} MB; "
        f"cosine to the source {_cosines(report.parity, report.int8_parity)}; "
        f"try: embedsvc serve --model {out}",
        err=True,
    )


def _cosines(parity: Parity, int8: Parity | None) -> str:
    """Return "0.999999 (least 0.999998)", then the same for int8 where it was written beside float32."""
    parts = [f"{parity.mean_cosine:.6f} (least {parity.min_cosine:.6f})"]
    if int8 is not None and int8 is not parity:
        parts.append(f"int8 {int8.mean_cosine:.4f} (least {int8.min_cosine:.4f})")
    return ", ".join(parts)
