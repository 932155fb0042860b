"""The run: data, tokenizer, sampler, model, loss, step …, evaluate, export. Read top to bottom.

A run folder is the model folder plus ``run/``:

    run/recipe.json     the recipe as read, checked on resume
    run/data.json       counts of pairs, languages, tokens and cut texts, checked on resume
    run/teacher.npy     the teacher's vectors of the English sentences, where a loss needs them;
                        teacher.json says whose they are
    run/tokenizer.json
    run/metrics.jsonl   one line per log, evaluation and checkpoint
    run/checkpoint.pt   everything needed to go on, replaced atomically
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from embedsvc.encoder import Encoder
from embedsvc.errors import EmbedsvcError, InvalidInputError
from embedsvc.textfiles import atomic_write, write_json
from training.config import Recipe
from training.data import TextPairs, TokenBags, pair_files, read_pairs, text_keys, tokenize
from training.held_out import HeldOut, ranking_accuracy, split_held_out
from training.learner import Learner, learning_rate
from training.objective import Objective
from training.prefetch import prefetched
from training.sampling import BatchSampler, BatchShape, PairSource, pair_weights
from training.static_export import write_static_folder
from training.static_model import StaticTable
from training.stop_request import StopRequest
from training.teacher import Teacher, open_teacher, teach
from training.tokenizer import train_tokenizer


def train(recipe: Recipe, out: Path, data_folder: Path, *, progress: bool = True) -> Path:
    """Train, or go on where an earlier call stopped, and write a model folder to ``out``.

    Raises InvalidInputError when ``out`` holds a run of another recipe or other data, EmbedsvcError
    when the loss is no longer finite (the last checkpoint stays).
    """
    run = out / "run"
    fresh = not run.exists()
    try:
        return _train(recipe, out, run, data_folder, progress)
    except InvalidInputError:
        if fresh:  # nothing was trained: the corrected recipe must not meet the remains of this one
            shutil.rmtree(run, ignore_errors=True)
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _train(recipe: Recipe, out: Path, run: Path, data_folder: Path, progress: bool) -> Path:
    if recipe.schedule.threads:
        torch.set_num_threads(recipe.schedule.threads)

    pairs = read_pairs(pair_files(recipe.data.pairs, data_folder), recipe.data.languages)
    if recipe.schedule.batch > len(pairs.other):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(pairs.other)} pairs of the data"
        )
    encoder = None
    if recipe.teacher is not None:
        encoder = open_teacher(recipe.teacher, dimension=recipe.model.dimension)
    run.mkdir(parents=True, exist_ok=True)
    _keep("another recipe", recipe.model_dump(), run / "recipe.json")
    characters = np.fromiter(map(len, pairs.english), np.int64, len(pairs.english))[pairs.group]
    weights = pair_weights(pairs.language, characters, recipe.sampling)
    tokenizer = _tokenizer(recipe, pairs, weights, run / "tokenizer.json")
    english, english_cut = tokenize(
        tokenizer, pairs.english, max_tokens=recipe.data.max_tokens, label="English", progress=progress
    )
    other, other_cut = tokenize(
        tokenizer, pairs.other, max_tokens=recipe.data.max_tokens, label="translations", progress=progress
    )
    _keep("other data", _data_report(pairs, english, other, english_cut + other_cut), run / "data.json")
    teacher = _taught(recipe, encoder, pairs.english, run, progress)

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
    sampler = BatchSampler(source, weights, _batch_shape(recipe), seed=recipe.seed)
    vocabulary = tokenizer.get_vocab_size()
    model = StaticTable(
        vocabulary,
        recipe.model.dimension,
        seed=recipe.seed,
        token_share=_token_share(english, other, vocabulary),
    )
    learner = Learner(recipe, model, _objective(recipe, teacher))
    _loop(learner, sampler, held_out, run, progress)
    write_static_folder(
        out,
        model.folded(),
        tokenizer.to_str(),
        matryoshka_dimensions=[*recipe.model.matryoshka, recipe.model.dimension],
    )
    return out


def _loop(learner: Learner, sampler: BatchSampler, held_out: HeldOut, run: Path, progress: bool) -> None:
    schedule = learner.recipe.schedule
    first = learner.restore(run / "checkpoint.pt")
    log = _MetricsLog(run / "metrics.jsonl")
    bar = tqdm(total=schedule.steps, initial=first, desc="train", unit="step", disable=not progress)
    losses: list[dict[str, float]] = []
    with StopRequest() as stopped:
        for step, batch in prefetched(sampler, first, schedule.steps):
            losses.append(learner.learn(batch, step))
            bar.update()
            done = step + 1
            if done % schedule.log_every == 0:
                means = {name: float(np.mean([one[name] for one in losses])) for name in losses[0]}
                bar.set_postfix(loss=f"{means['loss']:.3f}", refresh=False)
                log.write(step=done, **means, learning_rate=learning_rate(schedule, step))
                losses.clear()
            if done % schedule.evaluate_every == 0 or done == schedule.steps:
                accuracy = ranking_accuracy(learner.model.folded(), held_out)
                log.write(step=done, held_out_accuracy=accuracy)
                bar.write(f"step {done}: held-out ranking accuracy {accuracy:.4f}")
            if done % schedule.checkpoint_every == 0 or done == schedule.steps or stopped.asked:
                learner.checkpoint(done, run / "checkpoint.pt")
            if stopped.asked and done < schedule.steps:
                bar.close()
                raise EmbedsvcError(f"stopped at step {done} of {schedule.steps}; the same command goes on")
    bar.close()


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
    recipe: Recipe, encoder: Encoder | None, english: list[str], run: Path, progress: bool
) -> Teacher | None:
    if recipe.teacher is None or encoder is None:
        return None
    _keep("another teacher", {"fingerprint": encoder.fingerprint}, run / "teacher.json")
    return teach(
        encoder,
        recipe.teacher,
        english,
        run / "teacher.npy",
        dimension=recipe.model.dimension,
        progress=progress,
    )


def _objective(recipe: Recipe, teacher: Teacher | None) -> Objective:
    learnt = teacher is not None and teacher.learnt_projection
    projection = (recipe.model.dimension, teacher.dimension) if teacher is not None and learnt else None
    return Objective(recipe.objective, projection=projection, seed=recipe.seed)


def _tokenizer(recipe: Recipe, pairs: TextPairs, weights: NDArray[np.float64], path: Path) -> Tokenizer:
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


def _token_share(english: TokenBags, other: TokenBags, vocabulary: int) -> NDArray[np.float64]:
    count = np.bincount(english.ids, minlength=vocabulary) + np.bincount(other.ids, minlength=vocabulary)
    share: NDArray[np.float64] = count / count.sum()
    return share


def _keep(what: str, value: dict[str, Any], path: Path) -> None:
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


@dataclass
class _MetricsLog:
    path: Path

    def write(self, **values: float) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **values}) + "\n")
