"""`embedsvc export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from embedsvc.cli.options import INPUT_FILE, OUTPUT_FOLDER, PrecisionChoice
from embedsvc.model_folder import PRECISION_ALIASES

if TYPE_CHECKING:
    from embedsvc.model_folder import Precision
    from training.parity import Parity


@click.command()
@click.argument("model", required=False)
@click.option("--out", type=OUTPUT_FOLDER, required=True, help="Folder to write.")
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
        f"cosine to the source, changed as asked, {_cosines(report.parities)}; "
        f"try: embedsvc serve --model {out}",
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
