"""From a recipe to what batches are drawn from: pairs, tokenizer, token bags, teacher, held-out texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write, write_json
from training.config import Recipe
from training.data import TextPairs, TokenBags, pair_files, read_pairs, text_keys, tokenize
from training.held_out import HeldOut, split_held_out
from training.processes import rank, world
from training.sampling import Batches, BatchSampler, BatchShape, PairSource, pair_weights
from training.student import ReadyStudent
from training.teacher import Teacher, open_teacher, teach
from training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Prepared:
    """``tokenizer`` is the one trained on the data; None where the student brought its own.

    ``token_share`` (vocabulary,) is how often each token occurs in the data, of all tokens.
    """

    tokenizer: Tokenizer | None
    token_share: NDArray[np.float64] | None
    sampler: Batches
    held_out: HeldOut
    teacher: Teacher | None


class Preparation(Protocol):
    """How the data of one kind become what a run needs."""

    def __call__(
        self, recipe: Recipe, run: Path, data_folder: Path, *, ready: ReadyStudent | None, progress: bool
    ) -> Prepared:
        """Read and tokenize the data; see `prepare`."""


def prepare(
    recipe: Recipe, run: Path, data_folder: Path, *, ready: ReadyStudent | None = None, progress: bool
) -> Prepared:
    """Read and tokenize the data of a run; keep in ``run`` what a later call has to find unchanged.

    ready: what the student brings that was there before; without one a tokenizer is trained.

    Raises InvalidInputError for data that does not fit the recipe, or when ``run`` is of another recipe,
    other data, another teacher or another student.
    """
    pairs = read_pairs(pair_files(recipe.data.pairs, data_folder), recipe.data.languages)
    if recipe.schedule.batch > len(pairs.other):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(pairs.other)} pairs of the data"
        )
    dimension = ready.dimension if ready else recipe.model.width
    encoder = None
    if recipe.teacher is not None:
        encoder = open_teacher(recipe.teacher, dimension=dimension)
    begin_run(recipe, run, ready)
    characters = np.fromiter(map(len, pairs.english), np.int64, len(pairs.english))[pairs.group]
    weights = pair_weights(pairs.language, characters, recipe.sampling)
    tokenizer = None if ready else tokenizer_of(recipe, pairs, weights, run / "tokenizer.json")
    ids_of, longest = tokenization(recipe, tokenizer, ready)
    english, english_cut = tokenize(
        ids_of, pairs.english, max_tokens=longest, label="English", progress=progress
    )
    other, other_cut = tokenize(
        ids_of, pairs.other, max_tokens=longest, label="translations", progress=progress
    )
    keep("other data", _data_report(pairs, english, other, english_cut + other_cut), run / "data.json")
    teacher = _taught(recipe, encoder, pairs.english, run, dimension, progress)

    source = PairSource(
        english,
        other,
        pairs.group,
        text_keys(pairs.english)[pairs.group],
        text_keys(pairs.other),
        pairs.language,
        None if teacher is None else teacher.vectors,
    )
    held_out = split_held_out(source, groups=recipe.data.held_out_groups, seed=recipe.seed)
    weights[held_out.excluded] = 0.0
    sampler = BatchSampler(source, weights, _batch_shape(recipe), seed=recipe.seed, part=(rank(), world()))
    share = None if tokenizer is None else token_share([english, other], tokenizer.get_vocab_size())
    return Prepared(tokenizer, share, sampler, held_out, teacher)


def begin_run(recipe: Recipe, run: Path, ready: ReadyStudent | None) -> None:
    """Keep the recipe and what is known of the student; raise InvalidInputError for another run's folder."""
    run.mkdir(parents=True, exist_ok=True)
    _keep_recipe(recipe, run / "recipe.json")
    if ready is not None:
        keep("another student", {"fingerprint": ready.fingerprint}, run / "student.json")


def tokenization(
    recipe: Recipe, trained: Tokenizer | None, ready: ReadyStudent | None
) -> tuple[Callable[[Sequence[str]], list[list[int]]], int]:
    """Return how texts become token ids, without special ones, and the longest text that is not cut."""
    limit = recipe.data.max_tokens
    if ready is not None:
        return ready.tokenize, min(limit, ready.max_tokens or limit)
    assert trained is not None, "a student that brings no tokenizer is given one"

    def ids_of(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in trained.encode_batch_fast(list(texts), add_special_tokens=False)]

    return ids_of, limit


def _batch_shape(recipe: Recipe) -> BatchShape:
    sampling = recipe.sampling
    return BatchShape(
        recipe.schedule.batch,
        sampling.token_dropout,
        sampling.batches,
        sampling.translations,
        sampling.positives,
    )


def _taught(
    recipe: Recipe, encoder: Encoder | None, english: list[str], run: Path, dimension: int, progress: bool
) -> Teacher | None:
    if recipe.teacher is None or encoder is None:
        return None
    keep("another teacher", {"fingerprint": encoder.fingerprint}, run / "teacher.json")
    return teach(
        encoder,
        recipe.teacher,
        english,
        run / "teacher.npy",
        dimension=dimension,
        progress=progress,
    )


def tokenizer_of(recipe: Recipe, pairs: TextPairs, weights: NDArray[np.float64], path: Path) -> Tokenizer:
    """Train the tokenizer on a weighted sample of the pairs, or open the one of an earlier call."""
    if not path.exists():
        generator = np.random.default_rng(recipe.seed)
        cumulative = np.cumsum(weights)
        draws = np.searchsorted(cumulative, generator.random(recipe.tokenizer.sample) * cumulative[-1])
        rows = np.unique(np.minimum(draws, len(cumulative) - 1))
        texts = [pairs.other[row] for row in rows] + [
            pairs.english[row] for row in np.unique(pairs.group[rows])
        ]
        trained = train_tokenizer(
            texts, vocabulary=recipe.tokenizer.vocabulary, alphabet=recipe.tokenizer.alphabet
        )
        with atomic_write(path) as file:
            file.write(trained.to_str().encode())
    return Tokenizer.from_file(str(path))


def token_share(texts: Sequence[TokenBags], vocabulary: int) -> NDArray[np.float64]:
    """Return (vocabulary,): how often each token occurs in the texts, of all tokens."""
    count = np.sum([np.bincount(bags.ids, minlength=vocabulary) for bags in texts], axis=0)
    share: NDArray[np.float64] = count / count.sum()
    return share


def _keep_recipe(recipe: Recipe, path: Path) -> None:
    """As `keep`; keys that are newer than the run have their default there."""
    if path.exists():
        kept = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        if kept == recipe:
            return
    keep("another recipe", recipe.model_dump(), path)


def keep(what: str, value: dict[str, Any], path: Path) -> None:
    """Write what the run is made of; raise InvalidInputError when the folder holds another run."""
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != value:
        raise InvalidInputError(
            f"{path.parent.parent} holds a run of {what}; choose another --out or remove that one"
        )
    write_json(path, value)


def _data_report(pairs: TextPairs, english: TokenBags, other: TokenBags, cut: int) -> dict[str, Any]:
    count = np.bincount(pairs.language, minlength=len(pairs.languages))
    return {
        "pairs": len(pairs.other),
        "english_sentences": len(pairs.english),
        "tokens": len(english.ids) + len(other.ids),
        "texts_cut_at_max_tokens": cut,
        "languages": {code: int(n) for code, n in sorted(zip(pairs.languages, count, strict=True))},
    }
