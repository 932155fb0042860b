"""The run: data, tokenizer, sampler, model, loss, step …, evaluate, export. Read top to bottom.

A run folder is the model folder plus ``run/``:

    run/recipe.json     the recipe as read, checked on resume; `embedsvc train` reads it as any other
    run/environment.json  machine and versions of each call that differed from the one before
    run/data.json       size and sha256 of the files, checked on resume; counts of pairs, languages, tokens,
                        cut texts, and pairs that filters dropped
    run/data/           pairs and tokens (`training.pair_store`, `training.token_store`); may be removed
    run/teacher.npy     the teacher's vectors of the English sentences, where a loss needs them;
                        teacher.json says whose they are
    run/reranker.json   whose scores of passages are learnt, where the data have none
    run/tokenizer.json
    run/metrics.jsonl   one line per log and evaluation; metrics.html shows them, as of the last checkpoint
    run/best/           the best model so far, run/evaluation/ the reports of the end, where the recipe asks
    run/checkpoint.pt   everything needed to go on, replaced atomically; where the recipe keeps several, they
                        are run/checkpoints/<step>.pt (`training.checkpoints`)
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedsvc.encoder import locate_model
from embedsvc.errors import EmbedsvcError, InvalidInputError, ModelError, NotFoundError
from training.aids import needed_aids, write_heads
from training.checkpoints import Checkpoints
from training.config import Recipe
from training.evaluation.during_training import RunEvaluation, check_test_sets
from training.learner import Learner, learning_rate
from training.list_preparation import prepare_lists
from training.objective import Aids, Objective
from training.piece_ngrams import piece_ngrams
from training.prefetch import prefetched
from training.preparation import Preparation, Prepared, prepare
from training.processes import any_process, first_alone, leads, process_group, world
from training.run_page import write_run_page
from training.sampling import Batches
from training.static_model import StaticTable
from training.static_start import start_from
from training.static_student import StaticStudent
from training.stop_request import StopRequest
from training.student import Student
from training.teacher import Teacher
from training.training_bar import TrainingBar
from training.unlabelled import prepare_crops

if TYPE_CHECKING:
    from training.transformer_chain import Chain


def train(recipe: Recipe, out: Path, data_folder: Path, *, progress: bool = True) -> Path:
    """Train, or go on where an earlier call stopped, and write a model folder to ``out``.

    Raises InvalidInputError when ``out`` holds a run of another recipe or other data, EmbedsvcError
    when the loss is no longer finite (the last checkpoint stays).
    """
    run = out / "run"
    fresh = not run.exists()
    try:
        with process_group(device_kind(recipe)):
            return _train(recipe, out, run, data_folder, progress and leads())
    except (InvalidInputError, NotFoundError, ModelError):
        if fresh and leads():  # nothing was trained: a corrected recipe must not meet the remains of it
            shutil.rmtree(run, ignore_errors=True)
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def device_kind(recipe: Recipe) -> str:
    """Return "cuda" or "cpu": what the recipe asks for, or the GPU where there is one. A table needs none."""
    wanted = "cpu" if recipe.model.is_static else recipe.schedule.device
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _train(recipe: Recipe, out: Path, run: Path, data_folder: Path, progress: bool) -> Path:
    if recipe.schedule.threads:
        torch.set_num_threads(recipe.schedule.threads)

    if recipe.schedule.batch % world():
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} cannot be shared by {world()} processes"
        )
    check_test_sets(recipe.evaluation, data_folder)
    with first_alone():
        chain = _ready_chain(recipe)
        ready = None if chain is None else chain.ready
        data = _preparation(recipe)(recipe, run, data_folder, ready=ready, progress=progress)
        student = _student(recipe, chain, data, run)
    aids = needed_aids(recipe, student)
    learner = Learner(recipe, student, _objective(recipe, student, data.teacher, aids))
    evaluation = RunEvaluation(recipe.evaluation, data.held_out, data_folder, run)
    _loop(learner, data.sampler, evaluation, run, progress)
    if leads():
        student.write(out)
        write_heads(aids, out)
    return out


def _preparation(recipe: Recipe) -> Preparation:
    if recipe.data.lists:
        return prepare_lists
    return prepare_crops if recipe.data.texts else prepare


def _ready_chain(recipe: Recipe) -> Chain | None:
    """Open the transformer that the recipe names, before the data are read: it has the tokenizer."""
    if recipe.model.transformer is None:
        return None
    from training.transformer_chain import open_chain

    return open_chain(locate_model(recipe.model.transformer), recipe.model, seed=recipe.seed)


def _student(recipe: Recipe, chain: Chain | None, data: Prepared, run: Path) -> Student[Any]:
    if recipe.model.is_static:
        assert data.tokenizer is not None
        assert data.token_share is not None
        ngrams = recipe.model.ngrams
        table = StaticTable(
            len(data.token_share),
            recipe.model.width,
            seed=recipe.seed,
            token_share=data.token_share,
            ngrams=piece_ngrams(data.tokenizer, ngrams) if ngrams else None,
        )
        if recipe.model.start is not None:
            start_from(table, recipe.model.start)
        return StaticStudent(table, data.tokenizer, recipe)
    from embedsvc.encoders.pytorch import torch_device
    from training.transformer_chain import open_chain
    from training.transformer_student import TransformerStudent

    if chain is None:
        chain = open_chain(_fresh_folder(recipe, data, run), recipe.model, seed=recipe.seed)
    return TransformerStudent(chain, recipe, torch_device(device_kind(recipe)))


def _fresh_folder(recipe: Recipe, data: Prepared, run: Path) -> Path:
    from training.fresh_transformer import write_fresh_folder

    folder = run / "start"
    if not folder.exists():
        assert recipe.model.fresh is not None
        assert data.tokenizer is not None
        write_fresh_folder(
            folder,
            recipe.model.fresh,
            data.tokenizer.to_str(),
            max_tokens=recipe.data.max_tokens,
            seed=recipe.seed,
        )
    return folder


def _loop(learner: Learner, sampler: Batches, evaluation: RunEvaluation, run: Path, progress: bool) -> None:
    schedule = learner.recipe.schedule
    checkpoints = Checkpoints(run, schedule)
    first = learner.restore(checkpoints.newest())
    if leads():
        checkpoints.drop_old()  # where a kill came before it
    log = _MetricsLog(run / "metrics.jsonl")
    bar = TrainingBar(schedule, first, shown=progress)
    losses: list[dict[str, float]] = []
    with StopRequest() as stopped:
        for step, drawn in prefetched(partial(learner.draw, sampler), first, schedule.steps):
            losses.append(learner.learn(*drawn, step))
            bar.update()
            done = step + 1
            if done % schedule.log_every == 0:
                means = {name: float(np.mean([one[name] for one in losses])) for name in losses[0]}
                bar.show(means["loss"])
                log.write(step=done, **means, learning_rate=learning_rate(schedule, step))
                losses.clear()
            stop = any_process(stopped.asked, learner.student.device)
            if leads() and (done % schedule.evaluate_every == 0 or done == schedule.steps):
                figures = evaluation.figures(learner.student, done, last=done == schedule.steps)
                log.write(step=done, **figures)
                bar.write(f"step {done}: " + ", ".join(f"{name} {v:.4f}" for name, v in figures.items()))
            if checkpoints.is_due(done) or stop:
                learner.checkpoint(done, checkpoints.path(done))
                if leads():
                    checkpoints.drop_old()
                    write_run_page(run)
            if stop and done < schedule.steps:
                bar.close()
                raise EmbedsvcError(f"stopped at step {done} of {schedule.steps}; the same command goes on")
    bar.close()


def _objective(recipe: Recipe, student: Student[Any], teacher: Teacher | None, aids: Aids) -> Objective:
    learnt = teacher is not None and teacher.learnt_projection
    projection = (student.dimension, teacher.dimension) if teacher is not None and learnt else None
    return Objective(
        recipe.objective,
        projection=projection,
        aids=aids,
        seed=recipe.seed,
        device=student.device,
    )


@dataclass
class _MetricsLog:
    path: Path

    def write(self, **values: float) -> None:
        if not leads():
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **values}) + "\n")
