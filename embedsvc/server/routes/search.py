"""POST /v1/collections/{name}/search: by meaning, by words, by vector; one query or many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from embedsvc.collections.backends import AnyCollection
from embedsvc.collections.collection import Hit, SearchOptions, SearchResult
from embedsvc.collections.request import SearchRequest, checked_request
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.options import EncodeOptions
from embedsvc.server.answers import json_bytes
from embedsvc.server.inference import Asked, encode_for, state_of
from embedsvc.server.models import ServedModel
from embedsvc.server.requests.body import body_of, parsed_body
from embedsvc.server.requests.collections import ResultBody, ResultsBody, SearchBody
from embedsvc.server.state import ServerState

Vectors = Sequence[NDArray[np.float32]]
_SMALL_BYTES = 1 << 16  # of a body, parsed and checked in about a millisecond
_MAX_HITS = 100_000  # or candidates of all queries together: they are held in memory
router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.post(
    "/{name}/search",
    responses={200: {"model": ResultBody | ResultsBody}},
    openapi_extra=body_of(SearchBody),
)
async def search(request: Request, name: str) -> Response:
    """Find documents near in meaning to a question in any language, or to a vector, or with its words.

    One query is answered with its hits, a list of queries with a list of results.
    """
    body, options = await _checked(request)  # before the model works
    state = state_of(request)
    while True:
        target = await state.storage.run(_target, state, name)
        vectors = await _vectors(request, body, target)
        answer = await state.storage.run(_answer, body, options, target, vectors)
        if answer is not None:
            return Response(answer, media_type="application/json")


async def _checked(request: Request) -> tuple[SearchBody, SearchOptions]:
    """Return the body and its options; a large one is looked at in a thread, other requests go on."""
    content = await request.body()
    limit = state_of(request).settings.max_batch_texts

    def checked() -> tuple[SearchBody, SearchOptions]:
        body = parsed_body(content, request.headers, SearchBody)
        options = body.options()
        _check_size(body, checked_request(options), limit)
        return body, options

    return checked() if len(content) <= _SMALL_BYTES else await asyncio.to_thread(checked)


@dataclass(frozen=True)
class _Target:
    """The collection, whose vectors it holds, and the model that makes such, if it is served."""

    collection: AnyCollection
    fingerprint: str
    model: ServedModel | None


def _target(state: ServerState, name: str) -> _Target:
    collection = state.collections.get(name)
    fingerprint = collection.fingerprint
    return _Target(
        collection, fingerprint, state.models.with_fingerprint(fingerprint) if fingerprint else None
    )


def _check_size(body: SearchBody, wanted: SearchRequest, limit: int) -> None:
    queries, vectors = body.queries(), body.vectors()
    for name, given, what in (("query", queries, "queries"), ("vector", vectors, "vectors")):
        if given is not None and len(given) > limit:
            raise InvalidInputError(f"{name} has {len(given)} {what}; max_batch_texts = {limit}", param=name)
    count = len(queries if queries is not None else vectors or ())
    for depth, what, param in (
        (wanted.reach, "hits", "top_k"),
        (wanted.maxsim, "candidates", "maxsim"),
    ):
        if count * depth > _MAX_HITS:
            raise InvalidInputError(
                f"{count} queries for {depth} {what} each; the limit is {_MAX_HITS} {what} in all",
                param=param,
            )
    if count * wanted.rerank > limit:  # the cross-encoder reads them all
        raise InvalidInputError(
            f"{count} queries with {wanted.rerank} candidates each to rerank are {count * wanted.rerank} "
            f"texts; max_batch_texts = {limit}",
            param="rerank",
        )


async def _vectors(request: Request, body: SearchBody, target: _Target) -> Vectors | None:
    """Return the given vectors, else the queries' from the collection's model: encoded with other requests'.

    None where none is needed, or none can be made: the collection says why.
    """
    queries, given = body.queries(), body.vectors()
    if given is not None or queries is None or target.model is None or body.mode == "lexical":
        return given
    place = "query[{}]".format if body.is_list else "query".format
    options = EncodeOptions(input_type="query")
    encoding = await encode_for(request, target.model, queries, options, Asked(place))
    return list(encoding.vectors)


def _answer(
    body: SearchBody, options: SearchOptions, target: _Target, vectors: Vectors | None
) -> bytes | None:
    """Return the answer; None when the collection was re-embedded since the queries were encoded."""
    encoded = body.vector is None and vectors is not None
    try:
        results = target.collection.query(body.queries(), vectors, options)
    except DimensionMismatchError:
        if not encoded or target.collection.fingerprint == target.fingerprint:
            raise
        return None
    if encoded and target.collection.fingerprint != target.fingerprint:
        return None
    found = [_result(result) for result in results]
    return json_bytes({"results": found} if body.is_list else found[0])


def _result(result: SearchResult) -> dict[str, Any]:
    told: dict[str, Any] = {"hits": [_hit(hit) for hit in result.hits]}
    if result.facets is not None:
        told["facets"] = result.facets
    if result.plan is not None:
        told["plan"] = result.plan
    return told


def _hit(hit: Hit) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": hit.id,
        "text": hit.text,
        "language": hit.language,
        "score": hit.score,
        "metadata": hit.metadata,
    }
    if hit.passage is not None:
        told["passage"] = vars(hit.passage)
    if hit.explanation is not None:
        told["explanation"] = hit.explanation
    return told
