"""POST /v2/embed and /v1/embed, in the shape of Cohere."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request, Response

from embedsvc.encoder import Encoding
from embedsvc.errors import InvalidInputError
from embedsvc.quantize import CALIBRATED, Calibration, quantize
from embedsvc.server.answers import base64_rows, json_response, matrix_json, timing_headers
from embedsvc.server.inference import Asked, calibration_of, encode_for, state_of
from embedsvc.server.requests.body import body_of, read_body
from embedsvc.server.requests.cohere import (
    MAX_TEXTS,
    CohereError,
    EmbeddingType,
    EmbedRequest,
    EmbedResponse,
    EmbedV2Request,
)

_ERROR = {"model": CohereError, "description": "What is wrong."}
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
