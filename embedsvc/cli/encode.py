"""`embedsvc encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    encode_options,
    model_options,
    prompt_options,
    refuse_overwriting,
    vector_options,
)


@click.command()
@click.argument("file", type=INPUT_FILE)
@click.option("--out", type=OUTPUT_FILE, required=True, help="The .npy file to write, a row per line.")
@model_options
@prompt_options
@encode_options
@vector_options
def encode(
    file: Path,
    out: Path,
    model: str | None,
    runtime: Any,
    precision: Any,
    device: str | None,
    **options: Any,
) -> None:
    """Encode each line of FILE into one vector."""
    import numpy as np

    from embedsvc.encoder import load_encoder
    from embedsvc.textfiles import atomic_write, read_texts

    refuse_overwriting(out, file)
    texts = read_texts(file)
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    vectors = encoder.encode(texts, **options)
    with atomic_write(out) as target:
        np.save(target, vectors)
    click.echo(f"wrote {out}: {vectors.shape[0]} x {vectors.shape[1]} {vectors.dtype}", err=True)
