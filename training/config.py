"""A recipe: one TOML file that says everything about a run. Unknown keys are refused by name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from embedsvc.errors import InvalidInputError, NotFoundError
from training.data_config import DataConfig, added_language
from training.evaluation_config import EvaluationConfig
from training.loss_config import LossConfig, ScoreDistillationConfig, TranslationRankingConfig
from training.model_config import ModelConfig, TokenizerConfig
from training.recipe_errors import explained
from training.sampling_config import SamplingConfig
from training.schedule_config import ScheduleConfig
from training.section import Section
from training.teacher_config import RerankerConfig, TeacherConfig


class Recipe(Section):
    """All that a run is made from. Here stand the checks across sections; each section has its own."""

    name: str
    seed: int = 1
    data: DataConfig
    sampling: SamplingConfig = SamplingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig | None = None  # one loss, or
    losses: list[LossConfig] = Field(default_factory=list)  # several, each with its weight
    teacher: TeacherConfig | None = None
    reranker: RerankerConfig | None = None
    schedule: ScheduleConfig
    evaluation: EvaluationConfig | None = None

    @property
    def objective(self) -> list[LossConfig]:
        """The losses to be added up."""
        return self.losses or [self.loss or TranslationRankingConfig()]

    @model_validator(mode="before")
    @classmethod
    def _ranking_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("loss"), dict):
            loss = {"kind": TranslationRankingConfig().kind, **values["loss"]}
            return {**values, "loss": loss}
        return values

    @model_validator(mode="after")
    def _schedule_fits(self) -> Recipe:
        if not self.model.is_static and "learning_rate" not in self.schedule.model_fields_set:
            raise ValueError(
                "a transformer needs schedule.learning_rate: about 2e-5 for a ready-made one, 5e-4 for a "
                "fresh one"
            )
        if self.model.start and self.tokenizer.file:
            raise ValueError("model.start has a tokenizer of its own; leave out tokenizer.file")
        if self.tokenizer.extend and not self.model.start:
            raise ValueError("tokenizer.extend adds to the tokenizer of model.start, which is not given")
        changed = self.schedule.transformer_keys()
        if self.model.is_static and changed:
            raise ValueError(f"schedule.{changed[0]} is for transformers; the student is a static table")
        return self

    @model_validator(mode="after")
    def _lexicon_fits(self) -> Recipe:
        if self.data.lexicon is not None and not self.sampling.code_switching:
            raise ValueError("data.lexicon is given, but sampling.code_switching is 0")
        return self

    @model_validator(mode="after")
    def _needs_fit(self) -> Recipe:
        needs = {loss.kind: loss.needs for loss in self.objective}
        tokens = [kind for kind, need in needs.items() if need.tokens]
        scores = [kind for kind, need in needs.items() if need.scores]
        if tokens and self.model.is_static:
            raise ValueError(f"loss {tokens[0]!r} needs token states; a static table has none")
        if tokens and self.schedule.chunk is not None:
            raise ValueError(f"loss {tokens[0]!r} sees all tokens of a batch at once: schedule.chunk must go")
        if len({need.masked for need in needs.values() if need.masked}) > 1:
            raise ValueError("masked_tokens and cross_unmasking share masked texts: give both one share")
        if bool(scores) != bool(self.data.lists):
            raise ValueError("score_distillation learns from data.lists, and data.lists is for nothing else")
        if self.reranker and not self.data.lists:
            raise ValueError("a reranker is given, but there are no data.lists for it to score")
        return self._languages_fit()

    def _languages_fit(self) -> Recipe:
        for loss in self.objective:
            weighted = isinstance(loss, ScoreDistillationConfig) and loss.language_weight
            if weighted and self.sampling.mixing != "round_robin":
                raise ValueError(
                    'language_weight compares languages: it needs sampling.mixing = "round_robin"'
                )
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> Recipe:
        if self.loss and self.losses:
            raise ValueError("give one [loss] or several [[losses]], not both")
        kinds = [loss.kind for loss in self.objective]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"losses {', '.join(kinds)}: each kind once")
        taught = [loss.kind for loss in self.objective if loss.needs_teacher]
        if taught and self.teacher is None:
            raise ValueError(
                f"loss {taught[0]!r} needs a teacher: [teacher] with model = FOLDER, or --teacher"
            )
        if self.teacher and not self.data.pairs:
            raise ValueError("a teacher has vectors of English sentences: it needs data.pairs")
        if (self.data.negatives is None) != (self.sampling.negatives == 0):
            raise ValueError(
                "give both data.negatives, a file, and sampling.negatives, how many of each pair are drawn"
            )
        if self.data.negatives is not None and not any(loss.ranks_negatives for loss in self.objective):
            raise ValueError(
                "data.negatives is given, but no loss ranks negatives: only translation_ranking does"
            )
        if self.teacher and not taught:
            raise ValueError("a teacher is given, but no loss learns from it (distillation, teacher_ranking)")
        return self


def read_recipe(
    path: Path, *, teacher: str | None = None, student: str | None = None, add_languages: Sequence[str] = ()
) -> Recipe:
    """Read and check a recipe; raise InvalidInputError naming the key and the nearest valid one.

    ``teacher`` replaces the model of the recipe's [teacher], ``student`` its model.transformer (or fresh).
    ``add_languages`` are pairs to learn besides those of the recipe, each ``xx=FILE``.
    """
    values = _values(path)
    for added in add_languages:
        _add_language(values, added_language(added, Path()))
    if teacher is not None:
        values["teacher"] = {**values.get("teacher", {}), "model": teacher}
    if student is not None:
        ready = {**values.get("model", {}), "transformer": student}
        values["model"] = {key: value for key, value in ready.items() if key != "fresh"}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: {explained(error, Recipe)}") from error


def _values(path: Path) -> dict[str, Any]:
    """What a recipe holds: TOML, or JSON as a run keeps it."""
    if not path.is_file():
        raise NotFoundError(f"no recipe at {path}")
    kind, read = ("JSON", json.loads) if path.suffix == ".json" else ("TOML", tomllib.loads)
    try:
        values = read(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of either, and of bytes that are not UTF-8
        raise InvalidInputError(f"{path} is not valid {kind}: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} holds {type(values).__name__}; a recipe is an object")
    return values


def _add_language(values: dict[str, Any], section: dict[str, Any]) -> None:
    data = values.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    data["pairs"] = [*data.get("pairs", []), section]
    if data.get("languages") is not None:
        data["languages"] = [*data["languages"], section["target_language"]]
    values["data"] = data
