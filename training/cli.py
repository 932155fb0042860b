"""The `train`, `evaluate` and `export` commands."""

from __future__ import annotations

from pathlib import Path

import click


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
@click.option("--progress/--no-progress", default=True, show_default=True, help="Show progress.")
def train(recipe: Path, out: Path, data: Path | None, progress: bool) -> None:
    """Train an encoder from RECIPE, a TOML file; called again, it goes on where it stopped."""
    from embedsvc.encoder import torch_installed
    from embedsvc.errors import MissingExtraError
    from training.config import read_recipe

    checked = read_recipe(recipe)
    if not torch_installed():
        raise MissingExtraError("training", "train")
    from training.trainer import train as run

    run(checked, out, data or recipe.parent, progress=progress)
    click.echo(f"wrote {out}; try: embedsvc serve --model {out}", err=True)
