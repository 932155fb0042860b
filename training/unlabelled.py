"""A run on unlabelled texts: batches of random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.readers import read_records
from training.config import Recipe
from training.crops import CropSampler, CropShape, cropped
from training.data import TextPairs, TokenBags, pair_files, text_keys, tokenize
from training.draws import OneLanguageDraws, PairDraws
from training.held_out import HeldOut, held_out_keys
from training.preparation import Prepared, begin_run, keep, token_share, tokenization, tokenizer_of
from training.processes import rank, world
from training.sampling import bags, pair_weights
from training.student import ReadyStudent


def prepare_crops(
    recipe: Recipe, run: Path, data_folder: Path, *, ready: ReadyStudent | None = None, progress: bool
) -> Prepared:
    """As `training.preparation.prepare`, for a recipe with ``data.texts``."""
    texts = read_unlabelled(pair_files(recipe.data.texts, data_folder))
    if recipe.schedule.batch > len(texts.english):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(texts.english)} texts there are"
        )
    begin_run(recipe, run, ready)
    characters = np.fromiter(map(len, texts.english), np.int64, len(texts.english))
    weights = pair_weights(texts.language, characters, recipe.sampling)
    tokenizer = None if ready else tokenizer_of(recipe, texts, weights, run / "tokenizer.json")
    ids_of, longest = tokenization(recipe, tokenizer, ready)
    tokens, cut = tokenize(ids_of, texts.english, max_tokens=longest, label="texts", progress=progress)
    keep("other data", _report(texts, tokens, cut), run / "data.json")
    keys = text_keys(texts.english)
    held_out = held_out_crops(tokens, keys, recipe)
    weights[held_out.excluded] = 0.0
    one_language = recipe.sampling.batches == "one_language"
    draws = OneLanguageDraws(weights, texts.language) if one_language else PairDraws(weights)
    sampling = recipe.sampling
    shape = CropShape(recipe.schedule.batch, sampling.crops, sampling.token_dropout, (rank(), world()))
    sampler = CropSampler(tokens, keys, draws, shape, seed=recipe.seed)
    share = None if tokenizer is None else token_share([tokens], tokenizer.get_vocab_size())
    return Prepared(tokenizer, share, sampler, held_out, None)


def read_unlabelled(files: Sequence[Path]) -> TextPairs:
    """Return every text, both sides alike; a file is in the language that its name begins with (``de.txt``).

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
    group = np.arange(len(texts), dtype=np.int32)
    return TextPairs(texts, texts, group, np.array(language, np.int16), list(codes))


def held_out_crops(texts: TokenBags, keys: NDArray[np.int64], recipe: Recipe) -> HeldOut:
    """Keep some texts aside, two crops of each to be found by the other."""
    generator = np.random.default_rng((recipe.seed, 0xC40B))
    excluded = np.isin(keys, held_out_keys(keys, recipe.data.held_out_groups, generator))
    rows = np.flatnonzero(excluded)
    rows = np.sort(rows[np.unique(keys[rows], return_index=True)[1]])
    first, second = (bags(*cropped(texts, rows, recipe.sampling.crops, generator)) for _ in range(2))
    return HeldOut(first, second, excluded)


def _report(texts: TextPairs, tokens: TokenBags, cut: int) -> dict[str, Any]:
    count = np.bincount(texts.language, minlength=len(texts.languages))
    return {
        "texts": len(tokens),
        "tokens": len(tokens.ids),
        "texts_cut_at_max_tokens": cut,
        "languages": {code: int(n) for code, n in sorted(zip(texts.languages, count, strict=True))},
    }
