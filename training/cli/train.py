"""`embedsvc train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from embedsvc.cli.options import INPUT_FOLDER, OUTPUT_FOLDER, progress_option


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=OUTPUT_FOLDER, required=True, help="Model folder to write.")
@click.option(
    "--data",
    type=INPUT_FOLDER,
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
@progress_option
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
