"""The requests of Cohere's embed and rerank routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from embedsvc.errors import InvalidInputError
from embedsvc.options import EncodeOptions
from embedsvc.server.requests.body import StrictRequest
from embedsvc.tokens import check_unicode

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


def _document(given: Any) -> Any:
    texts = given.values() if isinstance(given, dict) else (given,)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a string or an object of strings is expected")
    return given


Document = Annotated[str | dict[str, str], BeforeValidator(_document)]


class RerankFields(StrictRequest):
    """Both versions' fields."""

    query: str
    model: str | None = Field(None, description="The reranker; without one, an embedding model.")
    top_n: int | None = Field(None, ge=1, description="How many of the best to return; by default all.")


class RerankV1Request(RerankFields):
    documents: list[Document] = Field(fail_fast=True, description="Texts, or objects with rank_fields.")
    rank_fields: list[str] | None = Field(
        None, min_length=1, fail_fast=True, description="Which fields of an object are read; by default text."
    )
    return_documents: bool = False
    max_chunks_per_doc: int | None = Field(
        None, ge=1, description="Taken for Cohere's clients; a long document is cut, not split."
    )

    def texts(self) -> list[str]:
        """Return what is ranked: strings, and of objects the rank_fields they have, a line each.

        Raises InvalidInputError naming an object that has none.
        """
        wanted = self.rank_fields or ["text"]
        texts = []
        for position, document in enumerate(self.documents):
            if isinstance(document, str):
                texts.append(document)
                continue
            for name, value in document.items():  # all of it may be returned
                check_unicode(f"{name}{value}", f"documents[{position}]", param="documents")
            parts = [document[field] for field in wanted if field in document]
            if not parts:
                raise InvalidInputError(
                    f"documents[{position}] has none of the fields {', '.join(wanted)}", param="documents"
                )
            texts.append("\n".join(parts))
        return texts


class RerankV2Request(RerankFields):
    documents: list[str] = Field(fail_fast=True)
    max_tokens_per_doc: int = Field(4096, ge=1, description="Longer documents are cut there.")


class RankedDocument(BaseModel):
    index: int
    relevance_score: float = Field(description="From 0 to 1.")
    document: dict[str, str] | None = Field(None, description="Present when return_documents is true.")


class RerankResponse(BaseModel):
    id: str
    results: list[RankedDocument] = Field(description="Best first.")
    meta: dict[str, Any]


class CohereError(BaseModel):
    message: str
