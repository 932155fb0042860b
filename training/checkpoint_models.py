"""The checkpoints that a run kept, as model folders: their mean often does better (Izmailov et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from embedsvc.encoder import locate_model
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import ModelFolder, open_model_folder, read_json
from training.checkpoints import Checkpoints, read_state
from training.config import Recipe, read_recipe
from training.piece_ngrams import piece_ngrams
from training.static_model import StaticTable
from training.static_student import StaticStudent
from training.student import Student

_Tensors = dict[str, torch.Tensor]


def checkpoint_models(out: Path, work: Path) -> dict[int, ModelFolder]:
    """Write a model folder of each checkpoint of the run ``out`` into ``work``; return them by their steps.

    Static tables are float32. Raises InvalidInputError for a folder that is no run, for one that kept fewer
    than two, and for a run whose transformer has changed since; StorageError for a damaged checkpoint.
    """
    run = out / "run"
    if not (run / "recipe.json").is_file():
        raise InvalidInputError(f"{out} is no run of `embedsvc train`: it kept nothing", param="checkpoints")
    recipe = read_recipe(run / "recipe.json")
    kept = Checkpoints(run, recipe.schedule).kept()
    if len(kept) < 2:
        raise InvalidInputError(
            f"{out} kept no checkpoints but the last; a mean needs two: set schedule.keep_checkpoints",
            param="checkpoints",
        )
    for step, path in kept.items():
        _restored(recipe, run, read_state(path)["model"]).write(work / str(step))
    return {step: open_model_folder(work / str(step)) for step in kept}


def _restored(recipe: Recipe, run: Path, state: _Tensors) -> Student[Any]:
    student = _table(recipe, run, state) if recipe.model.is_static else _transformer(recipe, run)
    student.restore(state)
    return student


def _table(recipe: Recipe, run: Path, state: _Tensors) -> Student[Any]:
    rows, width = state["vector"].shape
    exact = recipe.model.model_copy(update={"dtype": "float32"})
    tokenizer, least = Tokenizer.from_file(str(run / "tokenizer.json")), recipe.model.ngrams
    ngrams = piece_ngrams(tokenizer, least) if least else None
    table = StaticTable(rows, width, seed=recipe.seed, token_share=np.ones(rows), ngrams=ngrams)
    return StaticStudent(table, tokenizer, recipe.model_copy(update={"model": exact}))


def _transformer(recipe: Recipe, run: Path) -> Student[Any]:
    from training.transformer_chain import open_chain
    from training.transformer_student import TransformerStudent

    named = recipe.model.transformer
    start = run / "start" if named is None else locate_model(named)
    chain = open_chain(start, recipe.model, seed=recipe.seed)
    began = read_json(run / "student.json")["fingerprint"] if named is not None else None
    if began not in (None, chain.folder.fingerprint):
        raise InvalidInputError(
            f"{start} has changed since {run.parent} was trained from it: its fingerprint was {began}, now "
            f"{chain.folder.fingerprint}",
            param="checkpoints",
        )
    return TransformerStudent(chain, recipe, torch.device("cpu"))
