"""POST /v1/embeddings and GET /v1/models, in the shape of OpenAI."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from embedsvc.server.answers import embeddings_json, json_response, timing_headers
from embedsvc.server.inference import Asked, check_batch, encode_for, state_of
from embedsvc.server.models import ServedModel
from embedsvc.server.requests.body import body_of, read_body
from embedsvc.server.requests.openai import EmbeddingsRequest
from embedsvc.server.schemas import EmbeddingsResponse, ModelCard, ModelList
from embedsvc.server.state import StateDep

router = APIRouter(tags=["embeddings"])


@router.post("/embeddings", include_in_schema=False)
@router.post(
    "/v1/embeddings",
    responses={200: {"model": EmbeddingsResponse}},
    openapi_extra=body_of(EmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    """Encode texts into vectors."""
    body = await read_body(request, EmbeddingsRequest)
    state = state_of(request)
    check_batch(body.input, state.settings.max_batch_texts, field="input")
    served = await state.models.get(body.model)
    asked = Asked(priority=body.priority, timeout_ms=body.timeout_ms)
    encoding = await encode_for(request, served, body.input, body.options(), asked)
    as_base64 = body.encoding_format == "base64"
    return await json_response(
        lambda: embeddings_json(encoding, served.name, as_base64=as_base64, timings=body.timings),
        encoding.vectors,
        timing_headers(encoding, body.input),
    )


@router.get("/v1/models")
async def models(state: StateDep) -> ModelList:
    """Describe the models that are served, the default one first."""
    cards = [await asyncio.to_thread(_card, model) for model in state.models.all]
    return ModelList(data=cards)


@router.get("/v1/models/{name:path}")
async def model(name: str, state: StateDep) -> ModelCard:
    """Describe one model."""
    return await asyncio.to_thread(_card, state.models.find(name))


def _card(model: ServedModel) -> ModelCard:
    """Describe a model; its fingerprint reads the weights, once."""
    folder, loaded = model.folder, model.is_loaded
    runtime = model.encoder.runtime if loaded else None
    return ModelCard(
        id=model.name,
        created=model.created,
        loaded=loaded,
        dimension=runtime.dimension if runtime else None,
        max_tokens=runtime.max_tokens + runtime.special_tokens if runtime and runtime.max_tokens else None,
        prompts=folder.prompts,
        default_prompt_name=folder.default_prompt_name,
        matryoshka_dimensions=list(folder.matryoshka_dimensions),
        runtime=runtime.name if runtime else None,
        workers=runtime.workers if runtime else None,
        precision=folder.precision if runtime and runtime.name == "onnx" else None,
        agreement=model.agreement,
        memory_bytes=model.estimated_bytes(),
        fingerprint=folder.fingerprint,
    )
