"""What a recipe says about the student and its tokenizer. No torch: a recipe is checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from training.section import Positive, Section, Share

_STATIC_DIMENSION, _STATIC_PREFIXES = 256, [32, 64, 128]


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
    their weights (0: the embeddings alone); all learn when absent. ``ngrams``: see `training.piece_ngrams`.
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
    ngrams: int = Field(default=0, ge=0)  # n-grams that so many pieces have are learnt, too; 0: none
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
        if self.ngrams and not self.is_static:
            raise ValueError("ngrams is for static tables; the student is a transformer")
        if self.transformer is None:
            check_prefixes(self.matryoshka, self.width)
        return self


def check_prefixes(matryoshka: Sequence[int], dimension: int) -> None:
    """Raise ValueError for a Matryoshka size that is no proper prefix."""
    if any(size >= dimension for size in matryoshka):
        raise ValueError(f"matryoshka sizes {list(matryoshka)} must be smaller than dimension {dimension}")
