"""POST /v1/embeddings and GET /v1/models, in the shape of OpenAI."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from fastapi import APIRouter, Response
from pydantic_core import to_json

from embedsvc.encoder import Encoding
from embedsvc.errors import InvalidInputError
from embedsvc.options import EncodeOptions
from embedsvc.server.models import ServedModel
from embedsvc.server.schemas import EmbeddingsRequest, EmbeddingsResponse, ModelCard, ModelList
from embedsvc.server.state import StateDep

router = APIRouter(prefix="/v1", tags=["embeddings"])


@router.post("/embeddings", responses={200: {"model": EmbeddingsResponse}})
async def embeddings(request: EmbeddingsRequest, state: StateDep) -> Response:
    """Encode texts into vectors."""
    model = await state.models.get(request.model)
    limit = state.settings.max_batch_texts
    if len(request.input) > limit:
        raise InvalidInputError(
            f"input has {len(request.input)} texts; max_batch_texts = {limit}", param="input"
        )
    options = EncodeOptions(
        prompt_name=request.prompt_name,
        prompt=request.prompt,
        dimensions=request.dimensions,
        normalize=request.normalize,
        truncate=request.truncate,
    )
    encoding = await model.encode(request.input, options)
    as_base64 = request.encoding_format == "base64"
    # In a thread: 2,048 vectors as numbers take long enough to hold up every other request.
    body = await asyncio.to_thread(embeddings_json, encoding, model.name, as_base64=as_base64)
    return Response(body, media_type="application/json")


def embeddings_json(encoding: Encoding, model: str, *, as_base64: bool) -> bytes:
    """Return OpenAI's embeddings list as JSON: floats without loss, or base64 of little-endian float32."""
    vectors = np.ascontiguousarray(encoding.vectors, "<f4")
    items = []
    for index, (vector, truncated) in enumerate(zip(vectors, encoding.truncated, strict=True)):
        value = b'"%s"' % base64.b64encode(vector) if as_base64 else to_json(vector.tolist())
        flag = b',"truncated":true' if truncated else b""
        items.append(b'{"object":"embedding","index":%d,"embedding":%s%s}' % (index, value, flag))
    tokens = sum(encoding.tokens)
    return b'{"object":"list","data":[%s],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        b",".join(items),
        to_json(model),
        tokens,
        tokens,
    )


@router.get("/models")
async def models(state: StateDep) -> ModelList:
    """Describe the models that are served, the default one first."""
    cards = [await asyncio.to_thread(_card, model) for model in state.models.all]  # reads the weights once
    return ModelList(data=cards)


def _card(model: ServedModel) -> ModelCard:
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
        memory_bytes=model.estimated_bytes(),
        fingerprint=folder.fingerprint,
    )
