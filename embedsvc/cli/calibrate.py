"""`embedsvc calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import INPUT_FILE, INPUT_FOLDER, runtime_option


@click.command()
@click.argument("file", type=INPUT_FILE)
@click.option(
    "--model",
    type=INPUT_FOLDER,
    required=True,
    help="The model folder; its calibration.json is written.",
)
@runtime_option
def calibrate(file: Path, model: Path, runtime: Any) -> None:
    """Learn the scale of a model's int8 vectors from the lines of FILE, one typical text each.

    Without it the scale is learnt from sample passages in 16 languages. Vectors of different scales do
    not mix: calibrate before int8 vectors are stored.
    """
    from embedsvc.encoder import load_encoder
    from embedsvc.quantize import CALIBRATION_FILE, calibration_json, learn_calibration
    from embedsvc.textfiles import atomic_write, read_texts

    texts = read_texts(file)
    vectors = load_encoder(model, runtime=runtime).encode(texts, truncate="end")
    calibration = learn_calibration(vectors)
    with atomic_write(model / CALIBRATION_FILE) as target:
        target.write(calibration_json(calibration))
    click.echo(f"wrote {model / CALIBRATION_FILE}: limit {calibration.limit:.4f}", err=True)
