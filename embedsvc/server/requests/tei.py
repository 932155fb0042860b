"""The requests of text-embeddings-inference. As there, fields that it does not know are passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from embedsvc.options import EncodeOptions
from embedsvc.tokens import Truncate

TokenId = Annotated[int, Field(ge=0, lt=2**32)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]  # an error for each takes gigabytes


class TeiRequest(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


def _batch(given: Any) -> Any:
    """One text or one list of token ids → a list of one."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and all(type(part) is int for part in given):
        return [given]
    if not isinstance(given, list):
        raise ValueError("a string, token ids, or a list of them is expected")
    return given


_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def _one_or_many(*kinds: dict[str, Any]) -> WithJsonSchema:
    many = {"type": "array", "items": {"anyOf": list(kinds)}, "minItems": 1}
    return WithJsonSchema({"anyOf": [*kinds, many]})


Inputs = Annotated[
    list[str | TokenIds], Field(fail_fast=True), BeforeValidator(_batch), _one_or_many(_TEXT, _IDS)
]
Texts = Annotated[list[str], Field(fail_fast=True), BeforeValidator(_batch), _one_or_many(_TEXT)]
Ids = Annotated[list[TokenIds], Field(fail_fast=True), BeforeValidator(_batch), _one_or_many(_IDS)]


class TruncationFields(TeiRequest):
    truncate: bool | None = Field(None, description="Cut texts that are too long; by default true.")
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    def truncation(self) -> Truncate:
        """Return our name for it: cutting on the left drops the start."""
        if self.truncate is False:
            return "none"
        return "start" if self.truncation_direction.lower() == "left" else "end"


class PromptedFields(TruncationFields):
    prompt_name: str | None = Field(None, description="One of the model's prompts, e.g. query.")


class EmbedAllRequest(PromptedFields):
    inputs: Inputs

    def options(self) -> EncodeOptions:
        """Return the options that the request asks for."""
        return EncodeOptions(prompt_name=self.prompt_name, truncate=self.truncation())


class EmbedRequest(EmbedAllRequest):
    normalize: bool = True
    dimensions: int | None = None

    def options(self) -> EncodeOptions:
        """Return the options that the request asks for."""
        return replace(super().options(), dimensions=self.dimensions, normalize=self.normalize)


class SimilarityInputs(TeiRequest):
    source_sentence: str
    sentences: list[str] = Field(fail_fast=True)


class SimilarityRequest(TeiRequest):
    inputs: SimilarityInputs
    parameters: PromptedFields = PromptedFields.model_validate({})


class RerankRequest(TruncationFields):
    query: str
    texts: list[str] = Field(fail_fast=True)
    raw_scores: bool = Field(
        False, description="Logits instead of scores from 0 to 1; without effect on cosines."
    )
    return_text: bool = False


class TokenizeRequest(TeiRequest):
    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(TeiRequest):
    ids: Ids
    skip_special_tokens: bool = True


class Token(BaseModel):
    """One token; start and stop count characters of the text, and special tokens have none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Rank(BaseModel):
    index: int
    score: float
    text: str | None = None


class Info(BaseModel):
    """The server and its default model, as far as text-embeddings-inference has a word for it."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int | None = Field(description="Special tokens included; null: no limit.")
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None


class TeiError(BaseModel):
    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
