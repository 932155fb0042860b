"""A run on unlabelled texts: batches of random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.readers import read_records
from embedsvc.textfiles import write_json
from training.config import Recipe
from training.crops import CropSampler, CropShape, cropped
from training.data import TokenBags, text_keys
from training.draws import OneLanguageDraws, PairDraws
from training.held_out import HeldOut, held_out_keys
from training.pair_files import matching_files, path_facts
from training.preparation import (
    Prepared,
    begin_run,
    token_share,
)
from training.processes import rank, world
from training.run_facts import check_files
from training.run_tokenizer import run_tokenization, run_tokenizer
from training.sampling import pair_weights
from training.student import ReadyStudent
from training.token_store import SideTokens, tokenized


@dataclass(frozen=True)
class UnlabelledTexts:
    """``language`` (texts,) indexes ``languages``."""

    texts: list[str]
    language: NDArray[np.int16]
    languages: list[str]

    def some(self, rows: NDArray[np.int64]) -> list[str]:
        """Return some of the texts."""
        return [self.texts[row] for row in rows]


def prepare_crops(
    recipe: Recipe, run: Path, data_folder: Path, *, ready: ReadyStudent | None = None, progress: bool
) -> Prepared:
    """As `training.preparation.prepare`, for a recipe with ``data.texts``."""
    files = [path for pattern in recipe.data.texts for path in matching_files(pattern, data_folder)]
    begin_run(recipe, run, ready)
    facts = path_facts(files)
    check_files(facts, run / "data.json")
    read = read_unlabelled(files)
    if recipe.schedule.batch > len(read.texts):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(read.texts)} texts there are"
        )
    weights = _weights(read, recipe)
    tokenizer = None
    if ready is None:
        tokenizer = run_tokenizer(recipe, read.some, weights, run / "tokenizer.json", data_folder)
    side = tokenized(read.texts, run_tokenization(recipe, tokenizer, ready), label="texts", progress=progress)
    keys = text_keys(read.texts)
    held_out = held_out_crops(side.bags, keys, recipe)
    weights[held_out.excluded] = 0.0
    sampling, batch = recipe.sampling, recipe.schedule.batch
    one_language = sampling.batches == "one_language"
    draws = OneLanguageDraws(weights, read.language) if one_language else PairDraws(weights)
    shape = CropShape(batch, sampling.crops, sampling.token_dropout, (rank(), world()))
    sampler = CropSampler(side.bags, keys, draws, shape, seed=recipe.seed)
    share = None if tokenizer is None else token_share([side.counts], tokenizer.get_vocab_size())
    write_json(run / "data.json", {"files": facts, **_report(read, side)})
    return Prepared(tokenizer, share, None, sampler, held_out, None)


def _weights(read: UnlabelledTexts, recipe: Recipe) -> NDArray[np.float64]:
    characters = np.fromiter(map(len, read.texts), np.int64, len(read.texts))
    return pair_weights(read.language, characters, np.zeros(len(read.texts)), recipe.sampling)


def read_unlabelled(files: Sequence[Path]) -> UnlabelledTexts:
    """Return every text; a file is in the language that its name begins with (``de.txt``).

    Lines, TSV, JSONL or Parquet with a column ``text``; blank texts are passed over.
    Raises InvalidInputError naming file and line.
    """
    texts: list[str] = []
    codes: dict[str, int] = {}
    language: list[int] = []
    for path in files:
        code = codes.setdefault(path.name.partition(".")[0], len(codes))
        found = [record.text for record in read_records(path, IngestOptions(), None) if record.text.strip()]
        texts += found
        language += [code] * len(found)
    if not texts:
        raise InvalidInputError(f"no texts in {', '.join(map(str, files))}")
    return UnlabelledTexts(texts, np.array(language, np.int16), list(codes))


def held_out_crops(texts: TokenBags, keys: NDArray[np.int64], recipe: Recipe) -> HeldOut:
    """Keep some texts aside, two crops of each to be found by the other."""
    generator = np.random.default_rng((recipe.seed, 0xC40B))
    excluded = np.isin(keys, held_out_keys(keys, recipe.data.held_out_groups, generator))
    rows = np.flatnonzero(excluded)
    rows = np.sort(rows[np.unique(keys[rows], return_index=True)[1]])
    first, second = (cropped(texts, rows, recipe.sampling.crops, generator) for _ in range(2))
    return HeldOut(first, second, excluded)


def _report(read: UnlabelledTexts, side: SideTokens) -> dict[str, Any]:
    count = np.bincount(read.language, minlength=len(read.languages))
    return {
        "texts": len(read.texts),
        "tokens": len(side.bags.ids),
        "texts_cut_at_max_tokens": side.cut,
        "languages": {code: int(n) for code, n in sorted(zip(read.languages, count, strict=True))},
    }
