"""`embedsvc align`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    model_options,
    prompt_options,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from embedsvc.errors import InvalidInputError
    from embedsvc.mining.alignment.accuracy import Accuracy
    from embedsvc.mining.alignment.document import Document


@click.command()
@click.argument("source", type=INPUT_FILE)
@click.argument("target", type=INPUT_FILE)
@click.option(
    "--out",
    type=OUTPUT_FILE,
    required=True,
    help="The file to write: .tsv, .jsonl, .parquet, .tmx, .xlf, .moses or .vecalign.",
)
@click.option(
    "--format",
    type=click.Choice(["tsv", "jsonl", "parquet", "moses", "tmx", "xliff", "vecalign"]),
    help="Its format, whatever its name.",
)
@click.option(
    "--split",
    type=click.Choice(["lines", "sentences"]),
    default="lines",
    show_default=True,
    help="Every line is a sentence, or the text is split into sentences.",
)
@click.option("--src-lang", help="Language of SOURCE, such as de.  [default: detected where it matters]")
@click.option("--tgt-lang", help="Language of TARGET.")
@click.option(
    "--max-bead",
    type=click.IntRange(1, 16),
    default=5,
    show_default=True,
    help="Most sentences on one side of a bead; both sides together have at most one more.",
)
@click.option(
    "--block-vectors",
    type=click.Choice(["auto", "mean", "exact"]),
    default="auto",
    show_default=True,
    help="What stands for joined sentences: the mean of their vectors, that of the joined text, or that "
    "where the means leave doubt.",
)
@click.option("--gold", type=INPUT_FILE, help="Right beads, as .vecalign: print precision, recall and F1.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Shorter vectors (Matryoshka models).")
@click.option(
    "--truncate",
    type=click.Choice(["none", "start", "end"]),
    default="none",
    show_default=True,
    help="Where to cut a sentence longer than the model takes; none refuses it.",
)
@model_options
@prompt_options
def align(
    source: Path,
    target: Path,
    out: Path,
    format: str | None,
    split: Any,
    src_lang: str | None,
    tgt_lang: str | None,
    gold: Path | None,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **options: Any,
) -> None:
    """Align the sentences of two documents that are translations of each other.

    Every sentence is in exactly one bead: 1-1, 1-2, 3-1 … or alone (1-0, 0-1). Ids are the numbers of the
    sentences, from 0; the score says how far the cosine lies above that of random sentences.
    """
    from embedsvc.encoder import load_encoder
    from embedsvc.errors import InvalidInputError
    from embedsvc.mining.alignment.align import AlignOptions, align_sentences
    from embedsvc.mining.alignment.document import read_document
    from embedsvc.mining.alignment.files import check_beads_output, read_beads, write_beads

    refuse_overwriting(out, source, target, *([gold] if gold else []))
    right = read_beads(gold) if gold else None
    documents = read_document(source, split, src_lang), read_document(target, split, tgt_lang)
    check_beads_output(out, documents, (source, target), format=format)
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    try:
        beads = align_sentences(
            documents[0].sentences, documents[1].sentences, encoder, AlignOptions(**options)
        )
    except InvalidInputError as error:
        raise _at_line(error, {"source": (source, documents[0]), "target": (target, documents[1])}) from error
    count = write_beads(out, beads, documents, (source.name, target.name), format=format)
    sizes = " x ".join(str(len(document.sentences)) for document in documents)
    click.echo(f"wrote {out}: {count} beads of {sizes} sentences", err=True)
    if right is not None:
        from embedsvc.mining.alignment.accuracy import accuracy

        click.echo(_table(accuracy([(right, [(bead.source, bead.target) for bead in beads])])))


def _at_line(error: InvalidInputError, files: dict[str, tuple[Path, Document]]) -> InvalidInputError:
    """The library's error about ``source[row]``, as an error about a line of the file."""

    def line(found: re.Match[str]) -> str:
        path, document = files[found[1]]
        return f"{path} line {document.lines[int(found[2])]}"

    return type(error)(re.sub(r"\b(source|target)\[(\d+)\]", line, error.message), param=error.param)


def _table(found: Accuracy) -> str:
    lines = ["       precision  recall     F1"]
    for name, share in (("strict", found.strict), ("lax", found.lax)):
        lines.append(f"{name:<6} {share.precision:9.4f}  {share.recall:6.4f}  {share.f1:.4f}")
    return "\n".join(lines)
