"""`embedsvc align`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import INPUT_FILE, OUTPUT_FILE, model_options, refuse_overwriting


@click.command()
@click.argument("source", type=INPUT_FILE)
@click.argument("target", type=INPUT_FILE)
@click.option("--out", type=OUTPUT_FILE, required=True, help="The file to write, one bead per line.")
@click.option("--max-bead", type=click.IntRange(1, 16), default=5, show_default=True)
@model_options
def align(
    source: Path, target: Path, out: Path, max_bead: int, model: str | None, runtime: Any, precision: Any, device: str | None
) -> None:
    """Align the sentences of two documents that are translations of each other."""
    from embedsvc.encoder import load_encoder
    from embedsvc.mining.alignment.align import align as align_sentences
    from embedsvc.mining.formats import read_sentences
    from embedsvc.textfiles import atomic_write

    refuse_overwriting(out, source, target)
    sides = read_sentences(source), read_sentences(target)
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    beads = align_sentences(sides[0].texts, sides[1].texts, encoder=encoder, max_bead=max_bead)
    with atomic_write(out) as file:
        for bead in beads:
            texts = [" ".join(side.texts[i] for i in rows) for side, rows in zip(sides, (bead.source, bead.target), strict=True)]
            file.write(f"{bead.score:.6f}\t{bead.cosine:.6f}\t{list(bead.source)}\t{list(bead.target)}\t{texts[0]}\t{texts[1]}\n".encode())
