"""`embedsvc negatives`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedsvc.cli.options import (
    INPUT_FILE,
    OUTPUT_FILE,
    neighbour_options,
    progress_option,
    refuse_overwriting,
    work_option,
)


@click.command()
@click.argument("data", nargs=-1, required=True, type=INPUT_FILE)
@click.option("--out", type=OUTPUT_FILE, required=True, help="File to write: .jsonl (also .gz) or .parquet.")
@click.option("--model", help="Model whose errors are sought: folder or hub id.  [default: the bundled one]")
@click.option(
    "--src-lang", help="Language of the first text, where the file does not say it.  [default: English]"
)
@click.option("--tgt-lang", help="Language of the second text, where the file does not say it.")
@click.option("--count", type=int, default=8, show_default=True, help="Negatives of a pair, at most.")
@click.option("--skip", type=int, default=0, show_default=True, help="Nearest texts to pass over.")
@click.option(
    "--max-share",
    type=float,
    default=0.95,
    show_default=True,
    help="A negative scores at most this share of the positive's score; nearer ones are mostly translations.",
)
@click.option("--margin", type=float, default=0.0, show_default=True, help="And so much less, in cosines.")
@click.option(
    "--anchors",
    type=click.Choice(["english", "other", "both"]),
    default="english",
    show_default=True,
    help="The side that gets negatives, which are texts of the other one.",
)
@click.option(
    "--languages",
    type=click.Choice(["same", "any", "another"]),
    default="same",
    show_default=True,
    help="Of the negatives of an English text: that of its translation, any, or any but that.",
)
@click.option("--depth", type=int, help="Neighbours of a text to look at.  [default: enough for most]")
@click.option("--reranker", help="Cross-encoder that rejects false negatives: folder or hub id.")
@neighbour_options("How neighbours are found, as in `embedsvc mine`.")
@work_option
@progress_option
def negatives(
    data: tuple[Path, ...],
    out: Path,
    model: str | None,
    reranker: str | None,
    work: Path | None,
    src_lang: str | None,
    tgt_lang: str | None,
    progress: bool | None,
    **options: Any,
) -> None:
    """Find hard negatives for the pairs of DATA: texts near a translation that mean something else.

    DATA are files as `embedsvc train` reads them. A recipe takes what is written with
    `negatives = "FILE"` under [data] and `negatives = N` of each pair under [sampling].
    """
    from embedsvc.cli.progress import TerminalProgress
    from embedsvc.encoder import load_encoder
    from embedsvc.reranker import load_reranker
    from training.data_config import PairFiles
    from training.hard_negatives.miner import Models, mine_negatives
    from training.hard_negatives.options import NegativeOptions

    refuse_overwriting(out, *data)
    files = [
        PairFiles(files=str(path.absolute()), source_language=src_lang, target_language=tgt_lang)
        for path in data
    ]
    checked = NegativeOptions(**options)
    models = Models(load_encoder(model), None if reranker is None else load_reranker(reranker))
    with TerminalProgress(progress) as report:
        counts = mine_negatives(files, models, out, checked, work=work, report=report)
    click.echo(counts.text(out), err=True)
