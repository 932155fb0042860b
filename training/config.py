"""A recipe: one TOML file that says everything about a run. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from embedsvc.errors import InvalidInputError, NotFoundError
from training.data_config import DataConfig
from training.loss_config import LOSS_KINDS, LossConfig, TeacherConfig, TranslationRankingConfig
from training.section import Positive, Section, Share


class SamplingConfig(Section):
    """A pair is drawn by ``n^(language_exponent-1) * (1 + characters/length_pivot)^-length_exponent``.

    Batches of one language keep a model from telling languages apart instead of meanings, batches of
    all languages have the harder negatives (LAReQA, https://arxiv.org/abs/2004.05484: try both).
    """

    language_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    length_pivot: float = Field(default=60.0, gt=0.0)  # characters of the English side
    length_exponent: float = Field(default=0.0, ge=0.0)  # 0 = length does not matter
    token_dropout: Share = 0.0  # share of tokens left out of each text, at random
    batches: Literal["mixed", "one_language"] = "mixed"
    translations: Positive = (
        1  # of one English sentence, drawn into a batch together (fewer where it has fewer)
    )
    positives: Literal["own", "group"] = (
        "own"  # group: the other translations are positives too, not left out
    )

    @model_validator(mode="after")
    def _batches_fit(self) -> SamplingConfig:
        if self.batches == "one_language" and self.translations > 1:
            raise ValueError('translations of one sentence are in several languages: batches = "mixed"')
        return self


class TokenizerConfig(Section):
    vocabulary: Positive = 65536
    alphabet: Positive = 8000  # characters kept as single tokens
    sample: Positive = 1_000_000  # texts the tokenizer is trained on, drawn as pairs are


class ModelConfig(Section):
    dimension: Positive = 256
    matryoshka: list[Positive] = Field(default_factory=lambda: [32, 64, 128])  # besides the full dimension

    @model_validator(mode="after")
    def _prefixes_fit(self) -> ModelConfig:
        if any(size >= self.dimension for size in self.matryoshka):
            raise ValueError(
                f"matryoshka sizes {self.matryoshka} must be smaller than dimension {self.dimension}"
            )
        return self


class ScheduleConfig(Section):
    steps: Positive
    batch: Annotated[int, Field(gt=1)] = 2048
    learning_rate: float = Field(default=0.01, gt=0.0)
    warmup_steps: int = Field(default=500, ge=0)
    checkpoint_every: Positive = 1000
    evaluate_every: Positive = 1000
    log_every: Positive = 50
    threads: Positive | None = None  # torch's own choice when absent


class Recipe(Section):
    name: str
    seed: int = 1
    data: DataConfig
    sampling: SamplingConfig = SamplingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig | None = None  # one loss, or
    losses: list[LossConfig] = Field(default_factory=list)  # several, each with its weight
    teacher: TeacherConfig | None = None
    schedule: ScheduleConfig

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
        if self.teacher and not taught:
            raise ValueError("a teacher is given, but no loss learns from it (distillation, teacher_ranking)")
        return self


def read_recipe(path: Path, *, teacher: str | None = None) -> Recipe:
    """Read and check a recipe; raise InvalidInputError naming the key and the nearest valid one.

    ``teacher`` replaces the model of the recipe's [teacher].
    """
    if not path.is_file():
        raise NotFoundError(f"no recipe at {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not valid TOML: {error}") from error
    if teacher is not None:
        values["teacher"] = {**values.get("teacher", {}), "model": teacher}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from error


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in LOSS_KINDS)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}" + _nearest(str(item["loc"][-1]), _known_keys(Recipe))
    if item["type"] == "union_tag_invalid":
        tag, known = item["ctx"]["tag"], f"; known: {', '.join(LOSS_KINDS)}"
        return f"{key}.kind = {tag!r} is unknown" + (_nearest(tag, LOSS_KINDS) or known)
    if item["type"] in ("missing", "union_tag_not_found"):
        return f"key {key if item['type'] == 'missing' else key + '.kind'!r} is missing"
    if not key:  # about the recipe as a whole
        return str(item["msg"])
    return f"{key} = {item['input']!r}: {item['msg']}"


def _nearest(word: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _known_keys(section: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(name)
        for inner in _sections(field.annotation):
            keys.extend(_known_keys(inner))
    return keys


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold: itself one, or a list or choice of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
