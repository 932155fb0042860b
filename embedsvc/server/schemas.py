"""Requests and answers. Requests are strict: no guessing of types, no unknown fields."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from embedsvc.mining.extract import Retrieval
from embedsvc.mining.margin import Margin
from embedsvc.tokens import Truncate

_SHOWN_CHARACTERS = 60


class StrictRequest(BaseModel):
    """A request body or a part of one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                name = name[:_SHOWN_CHARACTERS]  # comparing megabytes takes seconds
                near = get_close_matches(name, cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
                raise ValueError(f"unknown field {name!r}; {hint}")
        return given


def _texts(given: Any) -> Any:
    """One text → a list of one; token ids are refused with the reason."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise ValueError("a string or a list of strings is expected")
    if not given:
        raise ValueError("the list is empty")
    first = given[0][0] if isinstance(given[0], list) and given[0] else given[0]
    if isinstance(first, int) and not isinstance(first, bool):
        raise ValueError("token ids are not taken, because they belong to one tokenizer; send texts")
    return given


Texts = Annotated[
    list[str],
    Field(fail_fast=True),  # an error for each of millions of items takes gigabytes
    BeforeValidator(_texts),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
Sentences = Annotated[list[str], Field(min_length=1, fail_fast=True)]


class EmbeddingsRequest(StrictRequest):
    input: Texts = Field(description="One text or a list of texts.")
    model: str | None = Field(None, description="The name from GET /v1/models; may be left out.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian float32, four times quicker to send and read."
    )
    dimensions: int | None = Field(None, description="Shorter vectors, for Matryoshka models.")
    user: str | None = Field(None, description="Accepted for OpenAI clients and ignored.")
    prompt_name: str | None = Field(None, description="One of the model's prompts, e.g. query.")
    prompt: str | None = Field(None, description="A text put before every input.")
    normalize: bool = Field(True, description="Unit vectors.")
    truncate: Truncate = Field("none", description="Where to cut a text that is too long; none refuses it.")


class EmbeddingItem(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool = Field(False, description="Present and true when the text was cut.")


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage


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
    memory_bytes: int = Field(description="An estimate until the model is loaded.")
    fingerprint: str = Field(description="Changes when the vectors change.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class DocumentBody(StrictRequest):
    id: str
    text: str
    language: str | None = Field(None, description="ISO 639 code; detected when left out.")
    metadata: dict[str, Any] | None = None


class DocumentsRequest(StrictRequest):
    documents: Annotated[list[DocumentBody], Field(min_length=1, fail_fast=True)]


class DocumentsResponse(BaseModel):
    inserted: int
    updated: int


class DeletedResponse(BaseModel):
    deleted: int


class CollectionCard(BaseModel):
    name: str
    documents: int = 0
    languages: dict[str, int] = Field(default={}, description="Documents per language, most first.")
    model: str | None = None
    fingerprint: str | None = None
    dimension: int | None = None
    problem: str | None = Field(None, description="Why this server cannot search it.")


class CollectionList(BaseModel):
    collections: list[CollectionCard]


class SearchBody(StrictRequest):
    query: str = Field(description="A question in any language.")
    top_k: int = Field(10, description="Most hits.")
    languages: list[str] | None = Field(
        None, fail_fast=True, description="Only documents in these languages."
    )
    offset: int = Field(0, description="Hits to skip.")
    min_score: float | None = Field(None, allow_inf_nan=False, description="Least cosine.")


class HitBody(BaseModel):
    id: str
    text: str
    language: str
    score: float
    metadata: dict[str, Any] | None


class SearchResponse(BaseModel):
    hits: list[HitBody]


class MineRequest(StrictRequest):
    source: Sentences
    target: Sentences
    margin: Margin = "ratio"
    k: int = Field(4, ge=1, description="Neighbours per sentence.")
    retrieval: Retrieval = "max"
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="Least score; the default suits the bundled model."
    )


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
