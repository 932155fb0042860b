"""From a recipe to what batches are drawn from: pairs, tokenizer, token bags, teacher, held-out texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import write_json
from training.augmentation import Augmentation, latin_letters
from training.config import Recipe
from training.hard_negatives.mined import MinedNegatives, PairIdentity, read_mined
from training.held_out import HeldOut, split_held_out
from training.lexicon import learnt_lexicon, read_lexicon
from training.likeness import sentence_likeness
from training.pair_files import PairFile, file_facts, pair_files
from training.pair_store import TextPairs, stored_pairs
from training.processes import rank, world
from training.run_facts import check_files, keep_environment, keep_facts, keep_recipe
from training.run_tokenizer import run_tokenization, run_tokenizer
from training.sampling import Batches, BatchSampler, BatchShape, PairSource, pair_weights
from training.static_start import static_folder
from training.student import ReadyStudent
from training.teacher import Teacher, open_teacher, teach
from training.token_store import SideTokens, Tokenization, stored_tokens


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
    encoder = None if recipe.teacher is None else open_teacher(recipe.teacher, dimension=dimension)
    begin_run(recipe, run, ready)
    files = pair_files(recipe.data.pairs, data_folder)
    lexicon = [] if recipe.data.lexicon is None else pair_files([recipe.data.lexicon], data_folder)
    facts = file_facts([*files, *lexicon])
    check_files(facts, run / "data.json")
    pairs = stored_pairs(files, recipe.data, facts, run / "data", progress=progress)
    _check(recipe, pairs)
    weights = _weights(recipe, pairs)
    tokenizer = None
    if ready is None:
        sampled = partial(_sampled, pairs)
        tokenizer = run_tokenizer(recipe, sampled, weights, run / "tokenizer.json", data_folder)
    how = run_tokenization(recipe, tokenizer, ready)
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
    sampler = BatchSampler(
        source,
        weights,
        _batch_shape(recipe),
        seed=recipe.seed,
        part=(rank(), world()),
        augmentation=_augmentation(recipe, pairs, how, lexicon, held_out),
    )
    counts = [english.counts, other.counts]
    share = None if tokenizer is None else token_share(counts, tokenizer.get_vocab_size())
    return Prepared(tokenizer, share, pairs, sampler, held_out, teacher)


def begin_run(recipe: Recipe, run: Path, ready: ReadyStudent | None) -> None:
    """Keep recipe, environment and what the student starts from; raise InvalidInputError for another run."""
    run.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, run / "recipe.json")
    keep_environment(run / "environment.json")
    if ready is not None:
        keep_facts("student", {"fingerprint": ready.fingerprint}, run / "student.json")
    if recipe.model.start is not None:
        fingerprint = static_folder(recipe.model.start).fingerprint
        keep_facts("model to start from", {"fingerprint": fingerprint}, run / "start.json")


def _check(recipe: Recipe, pairs: TextPairs) -> None:
    if recipe.schedule.batch > len(pairs.other):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(pairs.other)} pairs of the data"
        )
    without = pairs.report["without_english"]
    if recipe.teacher is not None and not recipe.teacher.multilingual and without:
        counts = ", ".join(f"{code} {count}" for code, count in without.items())
        raise InvalidInputError(
            f"the teacher reads the first text of every pair, and some have no English one: {counts}; set "
            "teacher.multilingual = true if it reads those languages"
        )


def _augmentation(
    recipe: Recipe,
    pairs: TextPairs,
    tokenization: Tokenization,
    files: Sequence[PairFile],
    held_out: HeldOut,
) -> Augmentation | None:
    """What the recipe says about changed texts; a lexicon learnt from the data knows no held-out pair."""
    sampling, lexicon = recipe.sampling, None
    if not sampling.code_switching and not sampling.transliteration:
        return None
    if sampling.code_switching:
        lexicon = read_lexicon(files) if files else learnt_lexicon(pairs, held_out.excluded)
    letters = latin_letters() if sampling.transliteration else None
    return Augmentation(pairs, tokenization, sampling, recipe.seed, lexicon, letters)


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
        pairs.english_key[pairs.group],
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


def _sampled(pairs: TextPairs, rows: NDArray[np.int64]) -> list[str]:
    """Return the texts of both sides of some pairs."""
    return [pairs.other[row] for row in rows] + [pairs.english[row] for row in np.unique(pairs.group[rows])]


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
