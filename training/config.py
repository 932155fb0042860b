"""A recipe: one TOML file that says everything about a run. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embedsvc.errors import InvalidInputError, NotFoundError

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which pairs to read. A pattern is relative to ``--data`` or, without it, to the recipe's folder."""

    pairs: list[str] = Field(min_length=1)
    languages: list[str] | None = None  # only these language codes; all when absent
    max_tokens: Positive = 128  # longer texts are cut, and counted in the data report
    held_out_groups: Positive = 2000  # English sentences kept aside, with all their translations


class SamplingConfig(_Section):
    """A pair is drawn by ``n^(language_exponent-1) * (1 + characters/length_pivot)^-length_exponent``."""

    language_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    length_pivot: float = Field(default=60.0, gt=0.0)  # characters of the English side
    length_exponent: float = Field(default=0.0, ge=0.0)  # 0 = length does not matter
    token_dropout: Share = 0.0  # share of tokens left out of each text, at random


class TokenizerConfig(_Section):
    vocabulary: Positive = 65536
    alphabet: Positive = 8000  # characters kept as single tokens
    sample: Positive = 1_000_000  # texts the tokenizer is trained on, drawn as pairs are


class ModelConfig(_Section):
    dimension: Positive = 256
    matryoshka: list[Positive] = Field(default_factory=lambda: [32, 64, 128])  # besides the full dimension

    @model_validator(mode="after")
    def _prefixes_fit(self) -> ModelConfig:
        if any(size >= self.dimension for size in self.matryoshka):
            raise ValueError(
                f"matryoshka sizes {self.matryoshka} must be smaller than dimension {self.dimension}"
            )
        return self


class LossConfig(_Section):
    kind: Literal["translation_ranking"] = "translation_ranking"
    scale: float = Field(default=20.0, gt=0.0)
    margin: float = Field(default=0.3, ge=0.0, lt=2.0)


class ScheduleConfig(_Section):
    steps: Positive
    batch: Annotated[int, Field(gt=1)] = 2048
    learning_rate: float = Field(default=0.01, gt=0.0)
    warmup_steps: int = Field(default=500, ge=0)
    checkpoint_every: Positive = 1000
    evaluate_every: Positive = 1000
    log_every: Positive = 50
    threads: Positive | None = None  # torch's own choice when absent


class Recipe(_Section):
    name: str
    seed: int = 1
    data: DataConfig
    sampling: SamplingConfig = SamplingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; raise InvalidInputError naming the key and the nearest valid one."""
    if not path.is_file():
        raise NotFoundError(f"no recipe at {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not valid TOML: {error}") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from error


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(Recipe), n=1)
        return f"unknown key {key!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    if item["type"] == "missing":
        return f"key {key!r} is missing"
    return f"{key} = {item['input']!r}: {item['msg']}"


def _known_keys(section: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys.extend(_known_keys(field.annotation))
    return keys
