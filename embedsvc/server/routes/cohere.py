"""Embed and rerank, versions 1 and 2, in the shape of Cohere."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request, Response

from embedsvc.encoder import Encoding
from embedsvc.errors import InvalidInputError
from embedsvc.quantize import CALIBRATED, Calibration, quantize
from embedsvc.server.answers import base64_rows, json_response, matrix_json, timing_headers
from embedsvc.server.inference import Asked, calibration_of, check_batch, encode_for, state_of
from embedsvc.server.ranking import Ranked, rank
from embedsvc.server.requests.body import body_of, read_body
from embedsvc.server.requests.cohere import (
    MAX_TEXTS,
    CohereError,
    EmbeddingType,
    EmbedRequest,
    EmbedResponse,
    EmbedV2Request,
    RerankFields,
    RerankResponse,
    RerankV1Request,
    RerankV2Request,
)

_ERROR = {"model": CohereError, "description": "What is wrong."}
_DOCUMENTS_PER_UNIT = 100  # as Cohere counts them
router = APIRouter(tags=["cohere"], responses={"4XX": _ERROR, "5XX": _ERROR})


@router.post("/v2/embed", responses={200: {"model": EmbedResponse}}, openapi_extra=body_of(EmbedV2Request))
async def embed_v2(request: Request) -> Response:
    """Encode texts into vectors of one or several types."""
    return await _embed(request, await read_body(request, EmbedV2Request), version=2)


@router.post("/v1/embed", responses={200: {"model": EmbedResponse}}, openapi_extra=body_of(EmbedRequest))
async def embed_v1(request: Request) -> Response:
    """Encode texts into vectors; without embedding_types the answer is a plain list."""
    return await _embed(request, await read_body(request, EmbedRequest), version=1)


async def _embed(request: Request, body: EmbedRequest, *, version: int) -> Response:
    if len(body.texts) > MAX_TEXTS:
        raise InvalidInputError(
            f"texts has {len(body.texts)} texts; the limit is {MAX_TEXTS} (POST /v1/embeddings takes more)",
            param="texts",
        )
    served = await state_of(request).models.get(body.model)
    options = body.options(served.folder.prompts)
    encoding = await encode_for(request, served, body.texts, options, Asked("texts[{}]".format))
    types = body.embedding_types or (["float"] if version == 2 else None)
    calibration = await calibration_of(served) if set(CALIBRATED) & set(types or ()) else None

    def answer() -> bytes:
        head = {"id": str(uuid4()), "texts": body.texts, "meta": _meta(encoding, version)}
        if types is None:
            kind, vectors = "embeddings_floats", matrix_json(encoding.vectors)
        else:
            kind, vectors = "embeddings_by_type", _by_type(encoding, types, calibration)
        return b'%b,"response_type":"%b","embeddings":%b}' % (orjson.dumps(head)[:-1], kind.encode(), vectors)

    return await json_response(answer, encoding.vectors, timing_headers(encoding, body.texts))


@router.post("/v2/rerank", responses={200: {"model": RerankResponse}}, openapi_extra=body_of(RerankV2Request))
async def rerank_v2(request: Request) -> Response:
    """Order documents by how well they answer the query, best first.

    relevance_score is the sigmoid of the reranker's logit; on a server without one, (1 + cosine) / 2.
    """
    body = await read_body(request, RerankV2Request)
    _check_documents(request, body.documents)
    ranked = Ranked(body.query, body.documents, "documents", max_text_tokens=body.max_tokens_per_doc)
    return await _ranked(request, ranked, body, version=2)


@router.post("/v1/rerank", responses={200: {"model": RerankResponse}}, openapi_extra=body_of(RerankV1Request))
async def rerank_v1(request: Request) -> Response:
    """Order documents, texts or objects, by how well they answer the query, best first.

    relevance_score is the sigmoid of the reranker's logit; on a server without one, (1 + cosine) / 2.
    """
    body = await read_body(request, RerankV1Request)
    _check_documents(request, body.documents)
    ranked = Ranked(body.query, body.texts(), "documents")
    return await _ranked(request, ranked, body, version=1)


def _check_documents(request: Request, documents: Sequence[object]) -> None:
    check_batch(documents, state_of(request).settings.max_batch_texts, field="documents")


async def _ranked(request: Request, ranked: Ranked, body: RerankFields, *, version: int) -> Response:
    ranking = await rank(request, ranked, body.model)
    scores = ranking.relevance()
    results = [
        {"index": row, "relevance_score": float(scores[row])} | _returned(body, row)
        for row in ranking.best_first()[: body.top_n]
    ]
    meta: dict[str, object] = {
        "api_version": {"version": str(version)},
        "billed_units": {"search_units": -(-len(ranked.texts) // _DOCUMENTS_PER_UNIT)},
        "tokens": {"input_tokens": sum(ranking.tokens)},
    }
    answer = {
        "id": str(uuid4()),
        "results": results,
        "meta": meta | ({"warnings": ranking.cut} if ranking.cut else {}),
    }
    headers = timing_headers(ranking, ranked.all)
    return Response(orjson.dumps(answer), headers=headers, media_type="application/json")


def _returned(body: RerankFields, row: int) -> dict[str, object]:
    if not isinstance(body, RerankV1Request) or not body.return_documents:
        return {}
    document = body.documents[row]
    return {"document": {"text": document} if isinstance(document, str) else document}


def _by_type(encoding: Encoding, types: Sequence[EmbeddingType], calibration: Calibration | None) -> bytes:
    members = []
    for kind in dict.fromkeys(types):
        if kind == "base64":
            rows = b"[%b]" % b",".join(base64_rows(encoding.vectors))
        elif kind == "float":
            rows = matrix_json(encoding.vectors)
        else:
            rows = matrix_json(quantize(encoding.vectors, kind, calibration))
        members.append(b'"%b":%b' % (kind.encode(), rows))
    return b"{%b}" % b",".join(members)


def _meta(encoding: Encoding, version: int) -> dict[str, object]:
    """Return what was used; texts that were cut are warned of."""
    meta: dict[str, object] = {
        "api_version": {"version": str(version)},
        "billed_units": {"input_tokens": sum(encoding.tokens)},
    }
    cut = [
        f"texts[{position}] has {tokens} tokens and was cut"
        for position, (tokens, truncated) in enumerate(zip(encoding.tokens, encoding.truncated, strict=True))
        if truncated
    ]
    return meta | ({"warnings": cut} if cut else {})
