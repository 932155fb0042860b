"""How a run's texts become tokens: with a tokenizer trained on them, a given one, or the student's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.textfiles import atomic_write
from training.config import Recipe
from training.extended_tokenizer import extended_tokenizer
from training.static_start import start_tokenizer
from training.student import ReadyStudent
from training.token_store import Tokenization
from training.tokenizer import read_tokenizer, train_tokenizer

Sampled = Callable[[NDArray[np.int64]], list[str]]
"""From rows of the data to their texts."""


def run_tokenizer(
    recipe: Recipe, sampled: Sampled, weights: NDArray[np.float64], path: Path, data_folder: Path
) -> Tokenizer:
    """Open the tokenizer of an earlier call, or make it as the recipe says.

    weights: how often each row of the data is drawn into the sample that a tokenizer is trained on.
    """
    if not path.exists():
        config = recipe.tokenizer
        if recipe.model.start is not None:
            made = start_tokenizer(recipe.model.start)
            if config.extend:
                made = extended_tokenizer(made, _sample(recipe, sampled, weights), pieces=config.extend)
        elif config.file is not None:
            made = read_tokenizer(data_folder / Path(config.file).expanduser())
        else:
            made = train_tokenizer(
                _sample(recipe, sampled, weights), vocabulary=config.vocabulary, alphabet=config.alphabet
            )
        made.no_truncation()
        made.no_padding()
        with atomic_write(path) as file:
            file.write(made.to_str().encode())
    return Tokenizer.from_file(str(path))


def _sample(recipe: Recipe, sampled: Sampled, weights: NDArray[np.float64]) -> list[str]:
    """The texts of a weighted sample of the rows, each once."""
    generator = np.random.default_rng(recipe.seed)
    cumulative = np.cumsum(weights)
    draws = np.searchsorted(cumulative, generator.random(recipe.tokenizer.sample) * cumulative[-1])
    return sampled(np.unique(np.minimum(draws, len(cumulative) - 1)))


def run_tokenization(recipe: Recipe, trained: Tokenizer | None, ready: ReadyStudent | None) -> Tokenization:
    """Return how texts become token ids, without special ones."""
    limit = recipe.data.max_tokens
    if ready is not None:
        return Tokenization(ready.tokenize, ready.fingerprint, min(limit, ready.max_tokens or limit))
    assert trained is not None, "a student that brings no tokenizer is given one"

    def ids_of(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in trained.encode_batch_fast(list(texts), add_special_tokens=False)]

    fingerprint = hashlib.sha256(trained.to_str().encode()).hexdigest()
    return Tokenization(ids_of, fingerprint, limit)
