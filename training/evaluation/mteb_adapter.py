"""mteb (https://github.com/embeddings-benchmark/mteb): our encoders as its models, and its tasks as ours.

A task is read from a folder that holds its dataset as the hub does, nothing is fetched. Figures are mteb's
own main score, without intervals, for mteb does not give results per item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, MissingExtraError, NotFoundError
from embedsvc.options import InputType
from training.evaluation.report import Column, Report, Task, make_report
from training.evaluation.vectors import encoded

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta
    from mteb.types import PromptType

PREFIX = "mteb:"
_BLANK = "."  # stands for a text without anything visible, which an encoder refuses and some datasets have
Vectors = NDArray[np.float32]


class MtebEncoder:
    """An encoder as mteb's `EncoderProtocol`, for `mteb.evaluate` and everything else that takes a model."""

    def __init__(self, encoder: Encoder) -> None:
        """Raise MissingExtraError without mteb."""
        self.encoder = encoder
        self.mteb_model_meta = _meta(encoder)

    def encode(
        self,
        inputs: Iterable[Mapping[str, list[str]]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002  (mteb gives them; the vectors of a text depend on none of them)
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,
        batch_size: int = 0,  # noqa: ARG002
        show_progress_bar: bool = False,  # noqa: ARG002
    ) -> Vectors:
        """Return unit rows ``(n, dim)`` of the batches' texts, too long ones cut, with the task's prompt."""
        texts = [text if text.strip() else _BLANK for batch in inputs for text in batch["text"]]
        prompt = task_prompt(self.encoder.folder.prompts, task_metadata, prompt_type)
        if prompt is not None:
            return encoded(self.encoder, texts, prompt_name=prompt)
        role: InputType | None = None if prompt_type is None else prompt_type.value
        return encoded(self.encoder, texts, role)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Vectors:
        """Return the cosines ``(n, m)`` of unit rows ``(n, dim)`` and ``(m, dim)``."""
        cosines: Vectors = np.atleast_2d(embeddings1) @ np.atleast_2d(embeddings2).T
        return cosines

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Vectors:
        """Return the cosines ``(n,)`` of each row of unit rows ``(n, dim)`` with the same row of others."""
        cosines: Vectors = np.einsum("nd,nd->n", np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))
        return cosines


def task_prompt(prompts: Mapping[str, str], task: TaskMetadata, prompt_type: PromptType | None) -> str | None:
    """Return the name of the model's prompt for a task: by its name or its type, with the role or without.

    In mteb's order. None where there is no such prompt: then the role's applies, by the names that
    `embedsvc.encoder` knows, or the model's default.
    """
    for name in (task.name, task.type):
        for full in (f"{name}-{prompt_type.value}" if prompt_type else name, name):
            if full in prompts:
                return full
    return None


def mteb_task(name: str, data: Path) -> AbsTask:
    """Return mteb's task of this name, without the prefix, to be read from ``data``.

    Raises MissingExtraError without mteb, InvalidInputError for an unknown name, NotFoundError where no
    folder ``mteb/<task>`` or ``mteb/<name of its dataset>`` is in ``data``.
    """
    task: AbsTask = _known_task(name)
    dataset = task.metadata.dataset
    places = [data / "mteb" / folder for folder in (name, dataset["path"].split("/")[-1])]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise NotFoundError(
            f"{PREFIX}{name}: neither {places[0]} nor {places[1]} is there; hf download {dataset['path']} "
            f"--repo-type dataset --revision {dataset['revision']} --local-dir {places[0]}"
        )
    task.metadata = task.metadata.model_copy(update={"dataset": {**dataset, "path": str(folder)}})
    return task


def _known_task(name: str) -> AbsTask:
    _require_mteb()
    from mteb import get_task, get_tasks

    try:
        return get_task(name)
    except KeyError as error:
        known = [task.metadata.name for task in get_tasks()]
        near = get_close_matches(name, known, n=1, cutoff=0)[0]
        raise InvalidInputError(f"mteb has no task {name!r}; did you mean {near!r}?") from error


def check_mteb_task(task: str) -> None:
    """Raise MissingExtraError without mteb, InvalidInputError for a task it does not have."""
    _known_task(task.removeprefix(PREFIX))


def evaluate_mteb(task_name: str, encoder: Encoder, data: Path) -> Report:
    """Return mteb's main score of "mteb:TASK", times 100, per subset (a language or a pair of them).

    Raises what `mteb_task` raises, and InvalidInputError for a folder that holds something else.
    """
    task = mteb_task(task_name.removeprefix(PREFIX), data)
    _load(task)
    model = MtebEncoder(encoder)
    from mteb import evaluate

    result = evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    described = _described(task)
    return make_report(described, encoder, _rows(result.task_results[0].scores, described.main))


def _load(task: AbsTask) -> None:
    """Read the dataset; a task of several subsets may have some of them."""
    try:
        task.load_data()
    except Exception as error:  # of mteb, datasets, polars or arrow: whoever first misses something
        name, folder = task.metadata.name, task.metadata.dataset["path"]
        raise InvalidInputError(f"{PREFIX}{name}: {folder} is no copy of its dataset: {error}") from error
    if "default" not in task.hf_subsets:
        task.hf_subsets = [subset for subset in task.hf_subsets if subset in task.dataset]


def _described(task: AbsTask) -> Task:
    from importlib.metadata import version

    figure = task.metadata.main_score
    how = f"mteb {version('mteb')}, {task.metadata.type}: 100 times its main score, {figure}, per subset."
    return Task(f"{PREFIX}{task.metadata.name}", how, (Column(figure),), figure)


def _rows(scores: Mapping[str, list[dict[str, Any]]], figure: str) -> dict[str, dict[str, float]]:
    """Return a row per subset, of each split where there are several."""
    rows = {}
    for split, subsets in scores.items():
        for score in subsets:
            row = score["hf_subset"] if len(scores) == 1 else f"{score['hf_subset']} {split}"
            rows[row] = {figure: 100 * score["main_score"]}
    return rows


def _require_mteb() -> None:
    try:
        import mteb  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a task of mteb", "mteb") from error


def _meta(encoder: Encoder) -> ModelMeta:
    _require_mteb()
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    known = {
        "name": f"embedsvc/{encoder.name}",
        "revision": encoder.fingerprint,
        "embed_dim": encoder.dimension,
        "similarity_fn_name": ScoringFunction.COSINE,
    }
    return ModelMeta.create_empty(known)
