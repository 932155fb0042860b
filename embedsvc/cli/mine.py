"""`embedsvc mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    encode_options,
    margin_options,
    model_options_but_precision,
    neighbour_options,
    prompt_options,
    refuse_overwriting,
    work_option,
)


@click.command()
@click.argument("source", type=INPUT_FILE, required=False)
@click.argument("target", type=INPUT_FILE, required=False)
@click.option(
    "--add-source",
    type=INPUT_FILE,
    multiple=True,
    help="One more file of SOURCE's side. Added later, with the --work of before, it costs what is new.",
)
@click.option("--add-target", type=INPUT_FILE, multiple=True, help="The same for TARGET.")
@click.option(
    "--out",
    type=OUTPUT_FILE,
    required=True,
    help="The file to write: .tsv, .jsonl, .parquet, .tmx, .xlf or .moses; text also with .gz, .xz, .zst.",
)
@work_option
@click.option(
    "--docs",
    is_flag=True,
    help='SOURCE and TARGET are .jsonl files of documents, {"id", "text" or "sentences"}: find those that '
    "are translations, align each two, mine the rest.",
)
@click.option("--src-lang", help="Language of SOURCE, such as de; sentences in another one are dropped.")
@click.option("--tgt-lang", help="Language of TARGET.")
@margin_options
@click.option(
    "--retrieval",
    type=click.Choice(["forward", "backward", "intersection", "max", "optimal"]),
    default="max",
    show_default=True,
    help="Best per source, best per target, both agreeing; or one to one: best pairs first, or the most "
    "in all.",
)
@click.option("--threshold", type=float, help="Least score kept; without it the score is calibrated.")
@click.option(
    "--precision", type=float, help="Share of right pairs wanted, such as 0.95; sets the threshold."
)
@click.option("--dev", type=INPUT_FILE, help="TSV of pairs known to be translations: calibrates the score.")
@click.option(
    "--filters",
    default="default",
    show_default=True,
    help="default, none, or names with commas: what is dropped is counted by reason.",
)
@click.option(
    "--encoding-errors",
    type=click.Choice(["strict", "replace"]),
    default="strict",
    show_default=True,
    help="A byte that is not UTF-8 is an error, or becomes U+FFFD.",
)
@click.option("--kind", help="What the files are, whatever their names: txt, tsv, jsonl, parquet, tmx, xliff")
@click.option("--columns", help="Columns of .tsv files without a header, with commas: id,text.")
@click.option("--text-field", default="text", show_default=True, help="Column or key of the sentence.")
@click.option("--id-field", help="Column or key of its id.  [default: id, where there is one]")
@click.option("--document-field", help="That of its document.  [default: document, where there is one]")
@click.option(
    "--min-characters",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="For the filter short; a Chinese, Japanese or Korean character counts as three.",
)
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="For the filter long.",
)
@click.option(
    "--max-line-bytes",
    type=click.IntRange(min=1),
    default=16 << 20,
    show_default=True,
    help="A longer line is an error.",
)
@click.option(
    "--src-vectors", type=INPUT_FILE, help=".npy of unit rows, one per record of SOURCE or without SOURCE."
)
@click.option("--tgt-vectors", type=INPUT_FILE, help="The same for TARGET.")
@neighbour_options(
    "How the nearest vectors are found; auto is exact, for 5 billion scores and more with a first pass "
    "in bytes."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where that search runs: in this process, or as tasks of a Ray cluster, each on --threads.",
)
@click.option(
    "--ray-address",
    help="HOST:PORT of the cluster's head.  [default: the cluster of this machine, else one is started]",
)
@click.option("--all-candidates", is_flag=True, help="Write every candidate, whatever its score.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples and bootstrap.")
@model_options_but_precision
@prompt_options
@encode_options
def mine(
    source: Path | None,
    target: Path | None,
    add_source: tuple[Path, ...],
    add_target: tuple[Path, ...],
    out: Path,
    work: Path | None,
    dev: Path | None,
    src_vectors: Path | None,
    tgt_vectors: Path | None,
    model: str | None,
    runtime: Any,
    model_precision: Any,
    device: str | None,
    progress: bool | None,
    filters: str,
    columns: str | None,
    **options: Any,
) -> None:
    """Find translation pairs between the sentences of SOURCE and of TARGET.

    Both are files of any size: .txt (a sentence per line), .tsv, .jsonl, .parquet, .tmx, .xliff; text also
    with .gz, .xz, .zst. Equal sentences are mined once and keep all their places. Beside OUT stands
    OUT.manifest.json (options, inputs, counts, calibration) and OUT.report.txt (scores, suspicious pairs).

    Without --dev and --threshold the threshold is estimated from the scores alone.
    """
    from embedsvc.cli.progress import TerminalProgress
    from embedsvc.encoder import load_encoder
    from embedsvc.mining.options import MiningOptions
    from embedsvc.mining.pipeline import mine_files
    from embedsvc.mining.sides import MiningInputs

    if target is None and source is not None:
        raise click.UsageError("give SOURCE and TARGET, or --src-vectors and --tgt-vectors")
    given = [source, target, *add_source, *add_target, dev, src_vectors, tgt_vectors]
    refuse_overwriting(out, *(file for file in given if file is not None))
    inputs = MiningInputs(
        source=[*([source] if source else []), *add_source],
        target=[*([target] if target else []), *add_target],
        source_vectors=src_vectors,
        target_vectors=tgt_vectors,
        dev=dev,
    )
    mining = MiningOptions(
        filters=tuple(filters.split(",")), columns=tuple(columns.split(",")) if columns else None, **options
    )
    encoder = None
    if src_vectors is None or tgt_vectors is None:
        encoder = load_encoder(model, runtime=runtime, precision=model_precision, device=device)
    with TerminalProgress(progress) as report:
        summary = mine_files(inputs, out, mining, work=work, encoder=encoder, report=report)
    click.echo(summary.text, err=True)
