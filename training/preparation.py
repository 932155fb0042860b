"""From a recipe to what batches are drawn from: pairs, tokenizer, token bags, teacher, held-out texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.textfiles import atomic_write, write_json
from training.config import Recipe
from training.data import text_keys
from training.hard_negatives.mined import MinedNegatives, PairIdentity, read_mined
from training.held_out import HeldOut, split_held_out
from training.likeness import sentence_likeness
from training.pair_files import file_facts, pair_files
from training.pair_store import TextPairs, stored_pairs
from training.processes import rank, world
from training.run_facts import check_files, keep_environment, keep_facts, keep_recipe
from training.sampling import Batches, BatchSampler, BatchShape, PairSource, pair_weights
from training.static_start import start_tokenizer, static_folder
from training.student import ReadyStudent
from training.teacher import Teacher, open_teacher, teach
from training.token_store import SideTokens, Tokenization, stored_tokens
from training.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Prepared:
    """``tokenizer`` is the one trained on the data; None where the student brought its own.

    ``token_share`` (vocabulary,) is how often each token occurs in the data, of all tokens. ``pairs`` are
    there where the data are pairs.
    """

    tokenizer: Tokenizer | None
    token_share: NDArray[np.float64] | None
    pairs: TextPairs | None
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
    Pairs and tokens lie in ``run/data``, where a later call finds them again.

    Raises InvalidInputError for data that does not fit the recipe, or when ``run`` is of another recipe,
    other data, another teacher or another student.
    """
    dimension = ready.dimension if ready else recipe.model.width
    encoder = None
    if recipe.teacher is not None:
        encoder = open_teacher(recipe.teacher, dimension=dimension)
    begin_run(recipe, run, ready)
    pairs = _pairs(recipe, run, data_folder, progress)
    weights = _weights(recipe, pairs)
    tokenizer = None
    if ready is None:
        sampled = partial(_sampled, pairs)
        tokenizer = tokenizer_of(recipe, sampled, weights, run / "tokenizer.json", data_folder)
    how = tokenization(recipe, tokenizer, ready)
    english, other = _tokens(pairs, how, run / "data", progress)
    write_json(run / "data.json", _data_report(pairs, english, other))
    teacher = _taught(recipe, encoder, pairs.english, run, dimension, progress)

    source = PairSource(
        english.bags,
        other.bags,
        pairs.group,
        pairs.group_key,
        pairs.other_key,
        pairs.language,
        None if teacher is None else teacher.vectors,
    )
    held_out = split_held_out(source, groups=recipe.data.held_out_groups, seed=recipe.seed)
    weights[held_out.excluded] = 0.0
    if recipe.data.negatives is not None:
        mined = _mined(recipe.data.negatives, pairs, how, run, data_folder)
        aside = held_out.excluded
        source = replace(source, mined=mined.without(source.group_key[aside], source.other_key[aside]))
    sampler = BatchSampler(source, weights, _batch_shape(recipe), seed=recipe.seed, part=(rank(), world()))
    counts = [english.counts, other.counts]
    share = None if tokenizer is None else token_share(counts, tokenizer.get_vocab_size())
    return Prepared(tokenizer, share, pairs, sampler, held_out, teacher)


def begin_run(recipe: Recipe, run: Path, ready: ReadyStudent | None) -> None:
    """Keep recipe, environment and what is known of the student; raise InvalidInputError for another run."""
    run.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, run / "recipe.json")
    keep_environment(run / "environment.json")
    if ready is not None:
        keep_facts("student", {"fingerprint": ready.fingerprint}, run / "student.json")
    if recipe.model.start is not None:
        fingerprint = static_folder(recipe.model.start).fingerprint
        keep_facts("model to start from", {"fingerprint": fingerprint}, run / "start.json")


def _pairs(recipe: Recipe, run: Path, data_folder: Path, progress: bool) -> TextPairs:
    files = pair_files(recipe.data.pairs, data_folder)
    facts = file_facts(files)
    check_files(facts, run / "data.json")
    pairs = stored_pairs(files, recipe.data, facts, run / "data", progress=progress)
    if recipe.schedule.batch > len(pairs.other):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(pairs.other)} pairs of the data"
        )
    return pairs


def _weights(recipe: Recipe, pairs: TextPairs) -> NDArray[np.float64]:
    likeness = np.zeros(len(pairs.english))
    if recipe.sampling.sentences:
        likeness = np.fromiter(map(sentence_likeness, pairs.english), np.float64, len(pairs.english))
    characters = pairs.characters[pairs.group].astype(np.int64)
    return pair_weights(pairs.language, characters, likeness[pairs.group], recipe.sampling)


def _batch_shape(recipe: Recipe) -> BatchShape:
    sampling = recipe.sampling
    return BatchShape(
        recipe.schedule.batch,
        sampling.token_dropout,
        sampling.batches,
        sampling.translations,
        sampling.positives,
        sampling.negatives,
    )


def _mined(
    name: str, pairs: TextPairs, tokenization: Tokenization, run: Path, data_folder: Path
) -> MinedNegatives:
    identity = PairIdentity(
        text_keys(pairs.english)[pairs.group],
        pairs.group_key,
        pairs.other_key,
        pairs.language,
        pairs.languages,
    )
    mined = read_mined(data_folder / Path(name).expanduser(), identity, tokenization)
    keep_facts("file of hard negatives", mined.facts(), run / "negatives.json")
    return mined


def _taught(
    recipe: Recipe, encoder: Encoder | None, english: Sequence[str], run: Path, dimension: int, progress: bool
) -> Teacher | None:
    if recipe.teacher is None or encoder is None:
        return None
    keep_facts("teacher", {"fingerprint": encoder.fingerprint}, run / "teacher.json")
    return teach(
        encoder,
        recipe.teacher,
        english,
        run / "teacher.npy",
        dimension=dimension,
        progress=progress,
    )


def _given_tokenizer(recipe: Recipe, data_folder: Path) -> Tokenizer | None:
    if recipe.model.start is not None:
        return start_tokenizer(recipe.model.start)
    if recipe.tokenizer.file is None:
        return None
    path = data_folder / Path(recipe.tokenizer.file).expanduser()
    if not path.is_file():
        raise NotFoundError(f"tokenizer.file: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more particular
        raise InvalidInputError(f"tokenizer.file: {path} is not a tokenizer: {error}") from error


def _sampled(pairs: TextPairs, rows: NDArray[np.int64]) -> list[str]:
    """Return the texts of both sides of some pairs."""
    return [pairs.other[row] for row in rows] + [pairs.english[row] for row in np.unique(pairs.group[rows])]


def tokenizer_of(
    recipe: Recipe,
    sampled: Callable[[NDArray[np.int64]], list[str]],
    weights: NDArray[np.float64],
    path: Path,
    data_folder: Path,
) -> Tokenizer:
    """Open the tokenizer of an earlier call or of the recipe, or train one on a weighted sample.

    sampled: rows of ``weights`` to their texts.
    """
    if not path.exists() and (given := _given_tokenizer(recipe, data_folder)) is not None:
        given.no_truncation()
        given.no_padding()
        with atomic_write(path) as file:
            file.write(given.to_str().encode())
    if not path.exists():
        generator = np.random.default_rng(recipe.seed)
        cumulative = np.cumsum(weights)
        draws = np.searchsorted(cumulative, generator.random(recipe.tokenizer.sample) * cumulative[-1])
        rows = np.unique(np.minimum(draws, len(cumulative) - 1))
        trained = train_tokenizer(
            sampled(rows), vocabulary=recipe.tokenizer.vocabulary, alphabet=recipe.tokenizer.alphabet
        )
        with atomic_write(path) as file:
            file.write(trained.to_str().encode())
    return Tokenizer.from_file(str(path))


def tokenization(recipe: Recipe, trained: Tokenizer | None, ready: ReadyStudent | None) -> Tokenization:
    """Return how texts become token ids, without special ones."""
    limit = recipe.data.max_tokens
    if ready is not None:
        return Tokenization(ready.tokenize, ready.fingerprint, min(limit, ready.max_tokens or limit))
    assert trained is not None, "a student that brings no tokenizer is given one"

    def ids_of(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in trained.encode_batch_fast(list(texts), add_special_tokens=False)]

    fingerprint = hashlib.sha256(trained.to_str().encode()).hexdigest()
    return Tokenization(ids_of, fingerprint, limit)


def _tokens(
    pairs: TextPairs, tokenization: Tokenization, folder: Path, progress: bool
) -> tuple[SideTokens, SideTokens]:
    english, other = (
        stored_tokens(texts, tokenization, {"pairs": pairs.fingerprint}, folder / side, progress=progress)
        for side, texts in (("english", pairs.english), ("other", pairs.other))
    )
    return english, other


def token_share(counts: Sequence[NDArray[np.int64]], vocabulary: int) -> NDArray[np.float64]:
    """Return (vocabulary,): how often each token occurs, of all; counts are of ids up to a side's largest."""
    count = np.zeros(vocabulary, np.int64)
    for side in counts:
        count[: len(side)] += side
    share: NDArray[np.float64] = count / count.sum()
    return share


def _data_report(pairs: TextPairs, english: SideTokens, other: SideTokens) -> dict[str, Any]:
    count = np.bincount(pairs.language, minlength=len(pairs.languages))
    return {
        **pairs.report,
        "pairs": len(pairs.other),
        "english_sentences": len(pairs.english),
        "tokens": len(english.bags.ids) + len(other.bags.ids),
        "texts_cut_at_max_tokens": english.cut + other.cut,
        "languages": {code: int(n) for code, n in sorted(zip(pairs.languages, count, strict=True))},
    }
