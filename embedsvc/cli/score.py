"""`embedsvc score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    encode_options,
    margin_options,
    model_options,
    prompt_options,
    refuse_overwriting,
)


@click.command()
@click.argument("pairs", type=INPUT_FILE, required=False)
@click.option("--src-file", type=INPUT_FILE, help="Instead of PAIRS: a file of lines and, with --tgt-file,")
@click.option("--tgt-file", type=INPUT_FILE, help="one whose line n is the translation of line n.")
@click.option(
    "--out",
    type=OUTPUT_FILE,
    required=True,
    help="The file to write. Of the same kind as PAIRS it keeps all columns; any other has those of mine.",
)
@click.option("--src-field", help="Column or key of the source.  [default: src]")
@click.option("--tgt-field", help="Column or key of the target.  [default: tgt]")
@click.option("--src-column", type=click.IntRange(min=1), help="Its number, for .tsv without a header.")
@click.option("--tgt-column", type=click.IntRange(min=1), help="The same of the target.")
@click.option(
    "--header/--no-header",
    default=None,
    help="Whether line 1 of a .tsv file names its columns.  [default: it does, unless they are numbered]",
)
@click.option("--src-lang", help="Language of the source: which one of .tmx or .xliff is read, or its name.")
@click.option("--tgt-lang", help="Language of the target.")
@margin_options
@click.option("--threshold", type=float, help="Leave out pairs that score less, or have no score.")
@click.option(
    "--filters",
    help="Add a column reason: the first of these filters that would drop a pair: ratio,copy,numbers.",
)
@click.option(
    "--calibration",
    type=INPUT_FILE,
    help="Add a column probability, by the calibration of a run of mine: its OUT.manifest.json.",
)
@click.option(
    "--src-pool", "source_pool", type=INPUT_FILE, help="Lines that count as neighbours of targets, too."
)
@click.option(
    "--tgt-pool", "target_pool", type=INPUT_FILE, help="Lines that count as neighbours of sources, too."
)
@model_options
@prompt_options
@encode_options
def score(
    pairs: Path | None,
    src_file: Path | None,
    tgt_file: Path | None,
    out: Path,
    src_field: str | None,
    tgt_field: str | None,
    src_column: int | None,
    tgt_column: int | None,
    header: bool | None,
    src_lang: str | None,
    tgt_lang: str | None,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    progress: bool | None,
    filters: str | None,
    **options: Any,
) -> None:
    """Add score and cosine to the pairs of a file, in their order: .tsv, .jsonl, .parquet, .tmx or .xliff.

    A pair's score is its margin among all pairs of the file; copies of a text count once. A blank side
    gives no score.
    """
    from embedsvc.encoder import load_encoder
    from embedsvc.mining.bitext import Bitext, BitextFields, ScoringOptions, score_file

    path, target_path = _inputs(pairs, src_file, tgt_file)
    given = (path, target_path, *(options[name] for name in ("source_pool", "target_pool", "calibration")))
    refuse_overwriting(out, *(file for file in given if file is not None))
    fields = BitextFields(*_sides(src_field, tgt_field, src_column, tgt_column), header)
    bitext = Bitext(path, target_path, fields, src_lang, tgt_lang)
    scoring = ScoringOptions(filters=tuple(filters.split(",")) if filters else (), **options)
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    summary = score_file(bitext, out, scoring, encoder=encoder, progress=progress)
    click.echo(_text(summary, scoring), err=True)


def _inputs(pairs: Path | None, src_file: Path | None, tgt_file: Path | None) -> tuple[Path, Path | None]:
    if pairs is not None and src_file is None and tgt_file is None:
        return pairs, None
    if pairs is None and src_file is not None and tgt_file is not None:
        return src_file, tgt_file
    raise click.UsageError("give PAIRS, or both --src-file and --tgt-file")


def _sides(
    src_field: str | None, tgt_field: str | None, src_column: int | None, tgt_column: int | None
) -> tuple[str | int, str | int]:
    if src_column is None and tgt_column is None:
        return src_field or "src", tgt_field or "tgt"
    if src_column is None or tgt_column is None or src_field is not None or tgt_field is not None:
        raise click.UsageError("give --src-field and --tgt-field, or both --src-column and --tgt-column")
    return src_column, tgt_column


def _text(summary: Any, options: Any) -> str:
    text = f"wrote {summary.out}: {summary.written} of {summary.read} pairs"
    if options.threshold is not None:
        text += f" with {options.margin} >= {options.threshold:g}"
    if summary.without_score:
        text += (
            f"; without a score, for a side that is blank or unknown to the model: {summary.without_score}"
        )
    if summary.reasons:
        text += "; reasons: " + ", ".join(f"{name} {count}" for name, count in summary.reasons.items())
    if summary.replaced:
        text += f"; replaced: {', '.join(summary.replaced)}"
    return text
