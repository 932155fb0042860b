"""Requests of the mining route, and what routes answer that have no file under requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema, WrapValidator

from embedsvc.mining.alignment.texts import BlockVectors
from embedsvc.mining.alignment.vectors import MAX_BEAD
from embedsvc.mining.extract import Retrieval
from embedsvc.mining.margin import Margin
from embedsvc.server.requests.body import StrictRequest

Sentences = Annotated[list[str], Field(min_length=1, fail_fast=True)]


def _text_or_sentences(given: Any, sentences: Callable[[Any], list[str]]) -> Any:
    return given if isinstance(given, str) else sentences(given)


# A union of the two would name its members in every error.
TextOrSentences = Annotated[
    Sentences,
    WrapValidator(_text_or_sentences),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


class EmbeddingItem(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool = Field(False, description="Present and true when the text was cut.")


class TimingsBody(BaseModel):
    """Milliseconds; total_ms runs from the arrival of the request to its vectors."""

    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage
    timings: TimingsBody | None = Field(None, description="Present when the request asks for timings.")


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970; of the model's files.")
    owned_by: str = "embedsvc"
    loaded: bool = Field(description="A model is loaded when it is first asked for.")
    dimension: int | None = Field(description="Null until the model is loaded.")
    max_tokens: int | None = Field(description="Longest text, special tokens included; null: no limit.")
    prompts: dict[str, str]
    default_prompt_name: str | None
    matryoshka_dimensions: list[int]
    runtime: str | None
    workers: int | None = Field(description="Batches that run side by side.")
    precision: str | None = Field(description="float32 or int8: the file of an ONNX model that is run.")
    agreement: float | None = Field(
        description="Least cosine to the reference vectors at load; null: no reference."
    )
    memory_bytes: int = Field(description="An estimate until the model is loaded.")
    fingerprint: str = Field(description="Changes when the vectors change.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class MineRequest(StrictRequest):
    source: Sentences
    target: Sentences
    margin: Margin = "ratio"
    k: int = Field(4, ge=1, description="Neighbours per sentence.")
    retrieval: Retrieval = "max"
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="Least score; the default suits the bundled model."
    )


class ScoreRequest(StrictRequest):
    source: Sentences = Field(description="source[i] and target[i] are a pair.")
    target: Sentences
    margin: Margin = "ratio"
    k: int = Field(4, ge=1, description="Neighbours per sentence.")
    source_pool: list[str] = Field(
        [], fail_fast=True, description="Sentences that count as neighbours of targets, too."
    )
    target_pool: list[str] = Field(
        [], fail_fast=True, description="The same for sources; few pairs need a pool."
    )


class ScoredPair(BaseModel):
    """Both null where a side is blank or has no token that the model knows."""

    score: float | None
    cosine: float | None


class ScoreResponse(BaseModel):
    pairs: list[ScoredPair] = Field(description="In the order of the request.")


class AlignRequest(StrictRequest):
    source: TextOrSentences = Field(description="The sentences of a document, or a text to be split.")
    target: TextOrSentences
    source_language: str | None = Field(None, description="Of a text; null: detected.")
    target_language: str | None = None
    max_bead: int = Field(MAX_BEAD, ge=1, le=16, description="Most sentences on one side of a bead.")
    block_vectors: BlockVectors = Field(
        "auto",
        description="What stands for joined sentences: the mean of their vectors, the vector of the joined "
        "text (exact), or that where the means leave doubt (auto).",
    )


class BeadBody(BaseModel):
    source: list[int] = Field(description="Sentences by number, from 0; empty: nothing corresponds.")
    target: list[int]
    score: float = Field(description="Cosine above that of random sentences; 0 where a side is empty.")
    cosine: float
    source_text: str
    target_text: str


class AlignResponse(BaseModel):
    beads: list[BeadBody]


class PairBody(BaseModel):
    score: float
    source_row: int
    target_row: int
    source: str
    target: str


class MineResponse(BaseModel):
    pairs: list[PairBody]


class Status(BaseModel):
    status: str


class ErrorDetail(BaseModel):
    message: str
    type: str
    code: str
    param: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail
