"""The `train`, `negatives`, `evaluate` and `export` commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from embedsvc.cli.options import INPUT_FILE, OUTPUT_FILE, ByteCount, PrecisionChoice, refuse_overwriting
from embedsvc.model_folder import PRECISION_ALIASES

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
@click.option(
    "--add-language",
    "add_languages",
    multiple=True,
    metavar="XX=FILE",
    help="Pairs of English and a language, learnt besides the recipe's; XX=FILE,FILE for two files of lines.",
)
@click.option("--progress/--no-progress", default=None, help="Show progress (default: on a terminal).")
def train(
    recipe: Path,
    out: Path,
    data: Path | None,
    teacher: str | None,
    student: str | None,
    add_languages: tuple[str, ...],
    progress: bool | None,
) -> None:
    """Train an encoder from RECIPE, a TOML file; called again, it goes on where it stopped."""
    from embedsvc.encoder import torch_installed
    from embedsvc.errors import MissingExtraError
    from training.config import read_recipe

    checked = read_recipe(recipe, teacher=teacher, student=student, add_languages=add_languages)
    if not torch_installed():
        raise MissingExtraError("training", "train")
    from training.processes import leads
    from training.trainer import train as run

    shown = sys.stderr.isatty() if progress is None else progress
    run(checked, out, data or recipe.parent, progress=shown)
    if leads():
        click.echo(f"wrote {out}; try: embedsvc serve --model {out}", err=True)


@click.command()
@click.argument("data", nargs=-1, required=True, type=INPUT_FILE)
@click.option("--out", type=OUTPUT_FILE, required=True, help="File to write: .jsonl (also .gz) or .parquet.")
@click.option("--model", help="Model whose errors are sought: folder or hub id.  [default: the bundled one]")
@click.option("--count", type=int, default=8, show_default=True, help="Negatives of a pair, at most.")
@click.option("--skip", type=int, default=0, show_default=True, help="Nearest texts to pass over.")
@click.option(
    "--max-share",
    type=float,
    default=0.95,
    show_default=True,
    help="A negative scores at most this share of the positive's score; nearer ones are mostly translations.",
)
@click.option("--margin", type=float, default=0.0, show_default=True, help="And so much less, in cosines.")
@click.option(
    "--anchors",
    type=click.Choice(["english", "other", "both"]),
    default="english",
    show_default=True,
    help="The side that gets negatives, which are texts of the other one.",
)
@click.option(
    "--languages",
    type=click.Choice(["same", "any", "another"]),
    default="same",
    show_default=True,
    help="Of the negatives of an English text: that of its translation, any, or any but that.",
)
@click.option("--depth", type=int, help="Neighbours of a text to look at.  [default: enough for most]")
@click.option("--reranker", help="Cross-encoder that rejects false negatives: folder or hub id.")
@click.option(
    "--neighbours",
    type=click.Choice(["auto", "exact", "int8", "ivf", "truncated", "gpu"]),
    default="auto",
    show_default=True,
    help="How neighbours are found, as in `embedsvc mine`.",
)
@click.option("--memory", type=ByteCount(), default="2GiB", show_default=True, help="Memory of that search.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of that search.  [default: all]")
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all that is computed on the way: killed, the same command goes on.",
)
@click.option("--progress/--no-progress", default=None, help="Show progress (default: on a terminal).")
def negatives(
    data: tuple[Path, ...],
    out: Path,
    model: str | None,
    reranker: str | None,
    work: Path | None,
    progress: bool | None,
    **options: Any,
) -> None:
    """Find hard negatives for the pairs of DATA: texts near a translation that mean something else.

    DATA are files as `embedsvc train` reads them. A recipe takes what is written with
    `negatives = "FILE"` under [data] and `negatives = N` of each pair under [sampling].
    """
    from embedsvc.cli.progress import TerminalProgress
    from embedsvc.encoder import load_encoder
    from embedsvc.reranker import load_reranker
    from training.hard_negatives.miner import Models, mine_negatives
    from training.hard_negatives.options import NegativeOptions

    refuse_overwriting(out, *data)
    checked = NegativeOptions(**options)
    models = Models(load_encoder(model), None if reranker is None else load_reranker(reranker))
    with TerminalProgress(progress) as report:
        counts = mine_negatives(data, models, out, checked, work=work, report=report)
    click.echo(counts.text(out), err=True)


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option(
    "--model", "models", multiple=True, help="Model folder or hub id; several compare.  [default: bundled]"
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with the test sets: tatoeba/, flores/, ntrex/, xquadr/, bucc/, sts/, retrieval/, mteb/.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
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
    type=PrecisionChoice(["float32", "int8", "int4"]),
    default="float32",
    show_default=True,
    help="Of a static model's table.",
)
@click.option("--onnx", help="Graphs of a transformer: float32, int8 or float32,int8.  [default: float32]")
@click.option(
    "--pooled-graph", is_flag=True, help="The graphs also give sentence_embedding, for others' use."
)
@click.option("--torch", is_flag=True, help="Write a transformer's torch weights; graphs only with --onnx.")
@click.option("--base", help="Of an adapter (LoRA): the model it is for.  [default: the one it names]")
@click.option(
    "--average", multiple=True, metavar="MODEL", help="Take the mean of the weights with this model too."
)
@click.option(
    "--checkpoints",
    is_flag=True,
    help="Of a run: take the mean of the checkpoints that it kept (schedule.keep_checkpoints).",
)
@click.option("--dimensions", type=click.IntRange(min=1), help="Cut a Matryoshka model to this size.")
@click.option("--force-dimensions", is_flag=True, help="Cut a model that was not trained for it too.")
@click.option(
    "--trim-vocabulary",
    type=INPUT_FILE,
    metavar="CORPUS",
    help="Keep the pieces that a file's texts use (.txt, .tsv, .jsonl, .parquet; packed too).",
)
@click.option("--keep", type=click.IntRange(min=1), help="Of these pieces only so many, the most frequent.")
@click.option(
    "--texts", type=INPUT_FILE, help="Typical texts, for the next four options (files as for CORPUS)."
)
@click.option("--pca", is_flag=True, help="Principal axes; with --dimensions the first, of any model.")
@click.option("--whiten", is_flag=True, help="The same with equal variance on each axis.")
@click.option(
    "--language-neutral",
    type=click.IntRange(min=1),
    metavar="RANK",
    help="Drop so many directions that tell the texts' languages apart.",
)
@click.option(
    "--map-to", metavar="MODEL", help="Map the vectors into another model's space: for its old index."
)
@click.option(
    "--map-kind",
    type=click.Choice(["procrustes", "ridge"]),
    default="procrustes",
    show_default=True,
    help="A rotation, or the least squares map.",
)
@click.option(
    "--figures",
    type=INPUT_FILE,
    multiple=True,
    help="report.json of `embedsvc evaluate`, of MODEL or of this export: its figures go into the card.",
)
@click.option("--license", help="Of the model, for its card: apache-2.0, mit …")
@click.option("--language", "languages", multiple=True, help="That the model knows, for its card.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
def export(
    model: str | None,
    out: Path,
    dtype: Literal["float32", "int8", "int4"],
    onnx: str | None,
    pooled_graph: bool,
    torch: bool,
    base: str | None,
    average: tuple[str, ...],
    checkpoints: bool,
    dimensions: int | None,
    force_dimensions: bool,
    trim_vocabulary: Path | None,
    keep: int | None,
    texts: Path | None,
    pca: bool,
    whiten: bool,
    language_neutral: int | None,
    map_to: str | None,
    map_kind: Literal["procrustes", "ridge"],
    figures: tuple[Path, ...],
    license: str | None,
    languages: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Convert MODEL (default: the bundled one) into a folder for serving.

    Transformers become ONNX, checked against torch; static models become float32, int8 or int4 tables
    (the float32 folder opens in sentence-transformers too). An int8 graph is faster and a little
    less exact; its vectors do not depend on what else is in the batch.
    """
    from training.card import CardOptions
    from training.export import ExportOptions, export_model
    from training.fitted_steps import Wanted, wanted_steps
    from training.trimming import Trim

    if keep is not None and trim_vocabulary is None:
        raise click.UsageError("--keep goes with --trim-vocabulary")
    wanted = Wanted(language_neutral, pca, whiten, dimensions, map_to, map_kind)
    options = ExportOptions(
        dtype=dtype,
        onnx=None if onnx is None else _precisions(onnx),
        pooled=pooled_graph,
        torch=torch,
        base=base,
        average=average,
        checkpoints=checkpoints,
        trim=None if trim_vocabulary is None else Trim(trim_vocabulary, keep),
        steps=wanted_steps(texts, wanted),
        dimensions=None if pca or whiten else dimensions,
        force_dimensions=force_dimensions,
        card=CardOptions(license, languages, figures),
        overwrite=overwrite,
    )
    report = export_model(model, out, options)
    for note in report.notes:
        click.echo(note, err=True)
    click.echo(
        f"wrote {out}: {report.kind}, {report.dimension} dimensions, {report.bytes / 1e6:.1f} MB; "
        f"cosine to the source {_cosines(report.parities)}; try: embedsvc serve --model {out}",
        err=True,
    )


def _precisions(names: str) -> list[Precision]:
    return cast("list[Precision]", [PRECISION_ALIASES.get(name, name) for name in names.split(",")])


def _cosines(parities: dict[str, Parity]) -> str:
    """Return "0.999999 (least 0.999998)", then the same for int8 where it was written beside float32."""
    first, *more = parities
    parts = [f"{parities[first].mean_cosine:.6f} (least {parities[first].min_cosine:.6f})"]
    for name in more:
        parts.append(f"{name} {parities[name].mean_cosine:.4f} (least {parities[name].min_cosine:.4f})")
    return ", ".join(parts)
