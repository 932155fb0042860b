"""`embedsvc mine`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    encode_options,
    model_options,
    prompt_options,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from embedsvc.errors import InvalidInputError
    from embedsvc.mining.formats import Sentences


@click.command()
@click.argument("source", type=INPUT_FILE)
@click.argument("target", type=INPUT_FILE)
@click.option("--out", type=OUTPUT_FILE, required=True, help="The TSV file to write: score, source, target.")
@click.option(
    "--margin",
    type=click.Choice(["ratio", "distance", "absolute"]),
    default="ratio",
    show_default=True,
    help="Cosine over, minus, or without the mean cosine of the neighbours.",
)
@click.option("--k", type=click.IntRange(min=1), default=4, show_default=True, help="Neighbours per text.")
@click.option(
    "--retrieval",
    type=click.Choice(["forward", "backward", "intersection", "max"]),
    default="max",
    show_default=True,
    help="Best per source, best per target, both agreeing, or best pairs first, one to one.",
)
@click.option("--threshold", type=float, help="Least score kept; the default suits the bundled model only.")
@click.option("--ids", is_flag=True, help="Add two columns: the line numbers in SOURCE and TARGET.")
@model_options
@prompt_options
@encode_options
def mine(
    source: Path,
    target: Path,
    out: Path,
    ids: bool,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **options: Any,
) -> None:
    """Find translation pairs between the lines of SOURCE and of TARGET.

    Both files hold one sentence per line; blank lines are skipped. Repeated lines are mined once.
    """
    from embedsvc.encoder import load_encoder
    from embedsvc.errors import InvalidInputError
    from embedsvc.mining.duplicates import distinct_rows
    from embedsvc.mining.formats import read_sentences, write_pairs
    from embedsvc.mining.mine import DEFAULT_THRESHOLDS
    from embedsvc.mining.mine import mine as mine_pairs

    refuse_overwriting(out, source, target)
    files = {"source": (source, read_sentences(source)), "target": (target, read_sentences(target))}
    sides = [sentences for _, sentences in files.values()]
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    if options["threshold"] is None:
        options["threshold"] = DEFAULT_THRESHOLDS[options["margin"]]
    try:
        pairs = mine_pairs(sides[0].texts, sides[1].texts, encoder=encoder, **options)
    except InvalidInputError as error:
        raise _at_line(error, files) from error
    numbers = (sides[0].line_numbers, sides[1].line_numbers)
    write_pairs(out, pairs, line_numbers=numbers if ids else None)
    lines = sum(len(side.texts) for side in sides)
    folded = lines - sum(len(distinct_rows(side.texts)) for side in sides)
    click.echo(
        f"wrote {out}: {len(pairs)} pairs with {options['margin']} >= {options['threshold']:g} from "
        f"{len(sides[0].texts)} x {len(sides[1].texts)} lines "
        f"(duplicates folded: {folded}, blank lines skipped: {sum(side.blank_lines for side in sides)})",
        err=True,
    )


def _at_line(error: InvalidInputError, files: dict[str, tuple[Path, Sentences]]) -> InvalidInputError:
    """The library's error about ``source[row]``, as an error about a line of the file."""

    def line(found: re.Match[str]) -> str:
        path, sentences = files[found[1]]
        return f"{path} line {sentences.line_numbers[int(found[2])]}"

    return type(error)(re.sub(r"\b(source|target)\[(\d+)\]", line, error.message), param=error.param)
