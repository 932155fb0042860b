"""A recipe: one TOML file that says everything about a run. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from embedsvc.errors import InvalidInputError, NotFoundError
from training.data_config import DataConfig, added_language
from training.evaluation_config import EvaluationConfig
from training.loss_config import (
    LOSS_KINDS,
    LossConfig,
    ScoreDistillationConfig,
    TeacherConfig,
    TranslationRankingConfig,
)
from training.section import Positive, Section, Share

Mixing = Literal["passages", "entries", "round_robin"]


class SamplingConfig(Section):
    """A pair is drawn by ``n^(language_exponent-1) * (1 + characters/length_pivot)^-length_exponent`` and by
    ``1 + sentences * likeness`` of its English text (`training.likeness`).

    Batches of one language keep a model from telling languages apart instead of meanings, batches of
    all languages have the harder negatives (LAReQA, https://arxiv.org/abs/2004.05484: try both).
    """

    language_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    length_pivot: float = Field(default=60.0, gt=0.0)  # characters of the English side
    length_exponent: float = Field(default=0.0, ge=0.0)  # 0 = length does not matter
    sentences: float = Field(default=0.0, ge=0.0)  # 3: sentences as people say them four times as often
    token_dropout: Share = 0.0  # share of tokens left out of each text, at random
    code_switching: Share = 0.0  # share of English texts in which words are replaced by a lexicon's
    switched_words: float = Field(default=0.5, gt=0.0, le=1.0)  # of the words of such a text in the lexicon
    transliteration: Share = 0.0  # share of the other texts written in ASCII letters (extra [augment])
    crops: tuple[float, float] = (0.1, 0.5)  # of unlabelled texts: the least and the greatest share of tokens
    batches: Literal["mixed", "one_language"] = "mixed"
    translations: Positive = (
        1  # of one English sentence, drawn into a batch together (fewer where it has fewer)
    )
    positives: Literal["own", "group"] = (
        "own"  # group: the other translations are positives too, not left out
    )
    negatives: int = Field(default=0, ge=0)  # of those in data.negatives, so many of each pair in a batch

    passages: Annotated[int, Field(gt=1)] = 6  # of each query of data.lists, drawn at random
    mixing: Mixing = "passages"  # of languages, see ListShape in training/list_sampling.py

    @model_validator(mode="after")
    def _crops_fit(self) -> SamplingConfig:
        low, high = self.crops
        if not 0 < low <= high <= 1:
            raise ValueError(f"crops = [{low}, {high}]: a smaller share, then a greater one, of at most 1")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> SamplingConfig:
        if self.batches == "one_language" and self.translations > 1:
            raise ValueError('translations of one sentence are in several languages: batches = "mixed"')
        return self


class RerankerConfig(Section):
    """The cross-encoder that scores the passages of data.lists: a folder or a hub id."""

    model: str
    max_text_tokens: Positive | None = None  # longer passages are cut


class TokenizerConfig(Section):
    """The tokenizer trained on the run's data, or the one in ``file``, relative to ``--data``."""

    file: str | None = None  # a tokenizer.json, as run/tokenizer.json of an earlier run
    extend: int = Field(default=0, ge=0)  # pieces for characters that the model.start does not know
    vocabulary: Positive = 65536
    alphabet: Positive = 8000  # characters kept as single tokens
    sample: Positive = 1_000_000  # texts the tokenizer is trained on, drawn as pairs are


class FreshConfig(Section):
    """A transformer that starts from nothing: BERT's layers over a tokenizer trained on the run's data."""

    layers: Positive
    hidden: Positive
    heads: Positive
    intermediate: Positive | None = None  # 4 * hidden when absent
    dropout: Share = 0.1

    @model_validator(mode="after")
    def _heads_fit(self) -> FreshConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        return self


class LoraConfig(Section):
    """Low-rank adapters beside frozen weights. Kept in the run folder, merged in the model."""

    rank: Positive = 16
    alpha: float = Field(default=32.0, gt=0.0)  # their output is multiplied by alpha / rank
    dropout: Share = 0.0
    targets: list[str] | Literal["all-linear"] = "all-linear"  # names of linear layers


class ModelConfig(Section):
    """The student: a static table, a ready-made ``transformer`` (folder or hub id), or a ``fresh`` one.

    ``dimension`` is a static table's width (256); a transformer keeps its own, or gets a linear layer to
    this one behind its pooling. ``pooling`` is the folder's own when absent, mean where it has none.
    ``prompt`` is put before every text, in training and by default in the model that comes of it; when
    absent, the folder's own default prompt is. ``frozen_layers`` first layers, and the embeddings, keep
    their weights (0: the embeddings alone); all learn when absent.
    """

    transformer: str | None = None
    fresh: FreshConfig | None = None
    start: str | None = None  # a static model (folder or hub id) whose table and tokenizer are gone on with
    pooling: Literal["mean", "cls"] | None = None
    prompt: str | None = None
    frozen_layers: int | None = Field(default=None, ge=0)
    lora: LoraConfig | None = None
    dimension: Positive | None = None
    matryoshka: list[Positive] = Field(default_factory=list)  # besides the full dimension
    matryoshka_every: Positive = 1  # batches; each such batch learns one of the sizes, in turn
    dtype: Literal["int4", "int8", "float32"] | None = None  # of the static table that is written; int8

    @property
    def is_static(self) -> bool:
        return self.transformer is None and self.fresh is None

    @property
    def width(self) -> int:
        """The dimension of a student that is made by the run."""
        width = self.dimension or (self.fresh.hidden if self.fresh else None)
        assert width is not None, "a ready-made transformer says itself how wide it is"
        return width

    @model_validator(mode="before")
    @classmethod
    def _static_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and not (values.get("transformer") or values.get("fresh")):
            return {"dimension": _STATIC_DIMENSION, "matryoshka": _STATIC_PREFIXES, "dtype": "int8", **values}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelConfig:
        if self.transformer is not None and self.fresh is not None:
            raise ValueError("give a ready-made transformer or the sizes of a fresh one, not both")
        if self.lora is not None and self.frozen_layers is not None:
            raise ValueError("with lora every layer is frozen: leave frozen_layers out")
        for key in ("pooling", "prompt", "frozen_layers", "lora"):
            if self.is_static and getattr(self, key) is not None:
                raise ValueError(f"{key} is for transformers; the student is a static table")
        for key in ("dtype", "start"):
            if getattr(self, key) is not None and not self.is_static:
                raise ValueError(f"{key} is for static tables; the student is a transformer")
        if self.transformer is None:
            check_prefixes(self.matryoshka, self.width)
        return self


_STATIC_DIMENSION, _STATIC_PREFIXES = 256, [32, 64, 128]


def check_prefixes(matryoshka: Sequence[int], dimension: int) -> None:
    """Raise ValueError for a Matryoshka size that is no proper prefix."""
    if any(size >= dimension for size in matryoshka):
        raise ValueError(f"matryoshka sizes {list(matryoshka)} must be smaller than dimension {dimension}")


class ScheduleConfig(Section):
    steps: Positive
    batch: Annotated[int, Field(gt=1)] = 2048  # pairs of one step, of all processes together
    learning_rate: float = Field(default=0.01, gt=0.0)  # a transformer has to be given one
    warmup_steps: int = Field(default=500, ge=0)
    checkpoint_every: Positive = 1000
    keep_checkpoints: Positive = 1  # the last so many, of which `embedsvc export --checkpoints` is the mean
    evaluate_every: Positive = 1000
    log_every: Positive = 50
    threads: Positive | None = None  # torch's own choice when absent
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights and loss stay in float32
    # The rest is for transformers; a static table trains on the processor.
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the GPU if there is one
    chunk: Positive | None = None  # texts encoded at once (cached gradients); the whole batch when absent
    weight_decay: float = Field(default=0.01, ge=0.0)  # not of biases and norms
    clip: float = Field(default=1.0, gt=0.0)  # longest gradient, all weights together
    gradient_checkpointing: bool = False  # less memory, a third more work


_TRANSFORMER_ONLY = {"device", "chunk", "weight_decay", "clip", "gradient_checkpointing"}


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
        given = self.schedule.model_fields_set
        if not self.model.is_static and "learning_rate" not in given:
            raise ValueError(
                "a transformer needs schedule.learning_rate: about 2e-5 for a ready-made one, 5e-4 for a "
                "fresh one"
            )
        changed = [k for k in sorted(given & _TRANSFORMER_ONLY) if getattr(self.schedule, k) != _default(k)]
        if self.model.start and self.tokenizer.file:
            raise ValueError("model.start has a tokenizer of its own; leave out tokenizer.file")
        if self.tokenizer.extend and not self.model.start:
            raise ValueError("tokenizer.extend adds to the tokenizer of model.start, which is not given")
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
            raise ValueError("data.negatives is given, but no loss ranks negatives (translation_ranking)")
        if self.teacher and not taught:
            raise ValueError("a teacher is given, but no loss learns from it (distillation, teacher_ranking)")
        return self


def _default(key: str) -> Any:
    return ScheduleConfig.model_fields[key].default


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
        raise InvalidInputError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from error


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
