"""What the routes of collections take and answer."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from embedsvc.collections.collection import CollectionOptions, Document, SearchOptions
from embedsvc.collections.options import DebiasMethod
from embedsvc.collections.request import Fusion, Mode
from embedsvc.errors import InvalidInputError
from embedsvc.server.requests.body import StrictRequest
from embedsvc.server.requests.vectors import Vector, Vectors

_DEFAULTS = CollectionOptions()
Codes = Annotated[list[str], Field(fail_fast=True)]
Conditions = dict[str, Any]


class CreateRequest(StrictRequest):
    name: str = Field(description="1 to 63 of a-z, 0-9, - and _.")
    model: str | None = Field(None, description="A name from GET /v1/models; the default one if left out.")
    dimension: int | None = Field(None, description="Width of the vectors, for a collection without a model.")
    debias: DebiasMethod = Field("none", description="What is taken out so that languages mix.")
    debias_pairs: str | None = Field(
        None, description="Metadata field whose equal values mark translations, for debias shift."
    )
    token_vectors: bool = Field(False, description="Keep the vectors of tokens, for maxsim.")
    chunk_tokens: int | None = Field(None, description="Longest passage; the model's limit if left out.")
    chunk_overlap: int = Field(_DEFAULTS.chunk_overlap, description="Tokens that passages share at most.")
    recall: float = Field(
        _DEFAULTS.recall, allow_inf_nan=False, description="Share of the true 10 nearest that is found."
    )

    def options(self) -> CollectionOptions:
        """Return the options; raise InvalidInputError naming the one that is wrong."""
        if self.model is not None and self.dimension is not None:
            raise InvalidInputError("give model or dimension, not both", param="dimension")
        return CollectionOptions(**self.model_dump(exclude={"name", "model"}))


class DocumentBody(StrictRequest):
    id: str
    text: str
    language: str | None = Field(None, description="ISO 639 code; detected when left out.")
    metadata: dict[str, Any] | None = None
    vector: Vector = Field(None, description="Instead of the model's; needed where there is no model.")

    def document(self) -> Document:
        """Return the document, unchecked."""
        return Document(self.id, self.text, self.language, self.metadata, self.vector)


class DocumentsRequest(StrictRequest):
    documents: Annotated[list[DocumentBody], Field(min_length=1, fail_fast=True)]


class DocumentsResponse(BaseModel):
    inserted: int
    updated: int


class StoredDocument(BaseModel):
    id: str
    text: str
    language: str
    metadata: dict[str, Any] | None = Field(None, description="Left out where there is none.")
    vector: list[float] | None = Field(
        None, description="With ?vector=true, unless the document was split into passages."
    )


class DeleteRequest(StrictRequest):
    """Which documents: these ids, or all that filter and languages let through."""

    ids: Annotated[list[str], Field(fail_fast=True)] | None = None
    filter: Conditions | None = None
    languages: Codes | None = None


class DeletedResponse(BaseModel):
    deleted: int


class ExportQuery(StrictRequest):
    """The options of an export, written as text."""

    model_config = ConfigDict(strict=False)

    vectors: bool = Field(False, description="With each document's vector, as base64 of float32.")
    languages: str | None = Field(None, description="Codes with commas between them.")
    filter: str | None = Field(None, description="Conditions on metadata, as JSON.")

    def codes(self) -> list[str] | None:
        """Return the language codes."""
        return None if self.languages is None else self.languages.split(",")

    def conditions(self) -> Conditions | None:
        """Return the filter; raise InvalidInputError unless it is a JSON object."""
        if self.filter is None:
            return None
        try:
            given = json.loads(self.filter)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"filter is not valid JSON: {error}", param="filter") from error
        if not isinstance(given, dict):
            raise InvalidInputError("filter must be a JSON object", param="filter")
        return given


class CollectionCard(BaseModel):
    name: str
    documents: int = 0
    passages: int = Field(default=0, description="More than documents where long ones were split.")
    languages: dict[str, int] = Field(default={}, description="Documents per language, most first.")
    fields: list[str] = Field(default=[], description="Fields of the metadata, for filters.")
    model: str | None = Field(default=None, description="Null for a collection without a model.")
    fingerprint: str | None = None
    dimension: int | None = None
    options: dict[str, Any] = Field(default={}, description="What was decided when it was made.")
    generation: int | None = Field(default=None, description="Changes so far.")
    created: float | None = Field(default=None, description="Seconds since 1970.")
    size_bytes: int | None = None
    recall: float | None = Field(
        default=None, description="Share of the true 10 nearest found, least of all languages; null: all."
    )
    problem: str | None = Field(default=None, description="Why this server cannot search it by meaning.")


class CollectionList(BaseModel):
    collections: list[CollectionCard]


class VerifyResponse(BaseModel):
    ok: bool
    problems: list[str]
    checked: dict[str, int] = Field(description="What was looked at, and how many of it.")


def _query(given: Any) -> Any:
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise ValueError("a string or a list of strings is expected")
    if not given:
        raise ValueError("the list is empty")
    for position, text in enumerate(given):
        if not isinstance(text, str):
            raise ValueError(f"text {position} is no string")
    return given


_TEXT = {"type": "string"}
Query = Annotated[
    Any,
    PlainValidator(_query),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]
Preference = Annotated[
    Any,
    WithJsonSchema({"anyOf": [_TEXT, {"type": "object", "additionalProperties": {"type": "number"}}]}),
]
Balance = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "round_robin"]},
                {"type": "object", "additionalProperties": {"type": "integer"}},
            ]
        }
    ),
]
_OPTIONS = tuple(field.name for field in fields(SearchOptions))


class SearchBody(StrictRequest):
    query: Query = Field(None, description="A question in any language, or a list of them.")
    vector: Vectors = Field(
        None, description="A vector to search for, or a list of them; with query: one for each."
    )
    top_k: int = Field(10, description="Most hits.")
    offset: int = Field(0, description="Hits to skip.")
    languages: Codes | None = Field(None, description="Only documents in these languages.")
    prefer_language: Preference = Field(
        None, description="A code, or {code: boost}: what is added to the score of its documents."
    )
    balance: Balance = Field(
        "none", description='The best of each language in turn, or {code: most hits}, "*" for the others.'
    )
    filter: Conditions | None = Field(
        None, description='Conditions on metadata: {"year": {"$gte": 2020}, "source": "manual"}.'
    )
    mode: Mode = Field("dense", description="By meaning, by words (BM25), or both.")
    fusion: Fusion = Field("rrf", description="How hybrid joins the two: by ranks or by scores.")
    min_score: float | None = Field(None, allow_inf_nan=False, description="Least score.")
    group_by: str | None = Field(None, description="Only the best hit for each value of this field.")
    maxsim: int = Field(0, description="Candidates scored anew by their token vectors.")
    rerank: int = Field(0, description="Candidates scored anew by the server's reranker.")
    query_language: str | None = Field(None, description="Detected when left out.")
    facets: bool = Field(False, description="Count documents per language.")
    explain: bool = Field(False, description="Say how it was done.")

    @property
    def is_list(self) -> bool:
        """Whether results are asked for in a list; one query alone is answered alone."""
        return isinstance(self.query, list) or isinstance(self.vector, list)

    def queries(self) -> list[str] | None:
        """Return the texts."""
        return [self.query] if isinstance(self.query, str) else self.query

    def vectors(self) -> list[NDArray[np.float32]] | None:
        """Return the vectors (dim,)."""
        given: list[NDArray[np.float32]] | None = (
            [self.vector] if isinstance(self.vector, np.ndarray) else self.vector
        )
        return given

    def options(self) -> SearchOptions:
        """Return the options of the search, unchecked."""
        return SearchOptions(**{name: getattr(self, name) for name in _OPTIONS})


class PassageBody(BaseModel):
    """The part of a document that was found; start and stop count characters of its text."""

    start: int
    stop: int
    text: str


class HitBody(BaseModel):
    id: str
    text: str
    language: str
    score: float
    metadata: dict[str, Any] | None
    passage: PassageBody | None = Field(None, description="Present where the document was split.")
    explanation: dict[str, Any] | None = Field(None, description="Present with explain.")


class ResultBody(BaseModel):
    hits: list[HitBody]
    facets: dict[str, int] | None = Field(None, description="Documents per language; present with facets.")
    plan: dict[str, Any] | None = Field(None, description="Present with explain.")


class ResultsBody(BaseModel):
    results: list[ResultBody] = Field(description="One for each query, when several were given.")
