"""The requests of Cohere's embed routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from embedsvc.options import EncodeOptions
from embedsvc.server.requests.body import StrictRequest

MAX_TEXTS = 96  # Cohere's; its clients split longer lists
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


def _no_images(given: Any) -> Any:
    if given is not None:
        raise ValueError("this server encodes texts only; send texts")
    return None


class EmbedRequest(StrictRequest):
    """Both versions' fields; version 2 asks for input_type."""

    model: str | None = None
    texts: list[str] = Field(min_length=1, fail_fast=True, description="At most 96.")
    input_type: Literal["search_document", "search_query", "classification", "clustering"] | None = None
    embedding_types: list[EmbeddingType] | None = Field(None, min_length=1, fail_fast=True)
    output_dimension: int | None = None
    max_tokens: int | None = None
    truncate: Literal["NONE", "START", "END"] = "END"
    images: Annotated[None, BeforeValidator(_no_images)] = None
    inputs: Annotated[None, BeforeValidator(_no_images)] = None

    def options(self, prompts: dict[str, str]) -> EncodeOptions:
        """Return the options; input_type takes the model's prompt of that name, else that of its role."""
        named = self.input_type if self.input_type in prompts else None
        roles: dict[str | None, Literal["query", "document"]] = {
            "search_query": "query",
            "search_document": "document",
        }
        cuts: dict[str, Literal["none", "start", "end"]] = {"NONE": "none", "START": "start", "END": "end"}
        return EncodeOptions(
            input_type=None if named else roles.get(self.input_type),
            prompt_name=named,
            dimensions=self.output_dimension,
            max_tokens=self.max_tokens,
            truncate=cuts[self.truncate],
        )


class EmbedV2Request(EmbedRequest):
    input_type: Literal["search_document", "search_query", "classification", "clustering"]


class EmbedResponse(BaseModel):
    id: str
    embeddings: dict[str, list[list[float]] | list[str]] | list[list[float]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type", "embeddings_floats"]


class CohereError(BaseModel):
    message: str
