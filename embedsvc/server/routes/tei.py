"""The routes of text-embeddings-inference: the default model, and texts are cut unless told otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import accumulate
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from embedsvc import __version__
from embedsvc.encoder import check_texts
from embedsvc.errors import InvalidInputError
from embedsvc.options import EncodeOptions
from embedsvc.pooling import read_pooling
from embedsvc.server.answers import json_response, matrix_json, number_rows, timing_headers
from embedsvc.server.errors import WrongModelError
from embedsvc.server.inference import Asked, check_batch, encode_for, encode_tokens_for, state_of
from embedsvc.server.models import ServedModel
from embedsvc.server.ranking import Ranked, Side, cosines, rank
from embedsvc.server.requests.body import body_of, read_body
from embedsvc.server.requests.tei import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    Info,
    Rank,
    RerankRequest,
    SimilarityRequest,
    TeiError,
    Token,
    TokenizeRequest,
)
from embedsvc.tokens import TextTokenizer

_ERROR = {"model": TeiError, "description": "The error and its kind."}
router = APIRouter(tags=["text-embeddings-inference"], responses={"4XX": _ERROR, "5XX": _ERROR})


@router.post("/", include_in_schema=False)
@router.post("/embed", responses={200: {"model": list[list[float]]}}, openapi_extra=body_of(EmbedRequest))
async def embed(request: Request) -> Response:
    """Encode texts, or token ids of the default model, into vectors."""
    body = await read_body(request, EmbedRequest)
    served = await _default(request)
    texts = await _texts(request, served, body.inputs)
    encoding = await encode_for(request, served, texts, body.options(), Asked("inputs[{}]".format))
    return await json_response(
        lambda: matrix_json(encoding.vectors), encoding.vectors, timing_headers(encoding, texts)
    )


@router.post(
    "/embed_all", responses={200: {"model": list[list[list[float]]]}}, openapi_extra=body_of(EmbedAllRequest)
)
async def embed_all(request: Request) -> Response:
    """Return the vectors of each text's tokens, special ones included, before they are pooled."""
    body = await read_body(request, EmbedAllRequest)
    served = await _default(request)
    texts = await _texts(request, served, body.inputs)
    encoding = await encode_tokens_for(request, served, texts, body.options(), "inputs[{}]".format)
    content = await asyncio.to_thread(
        lambda: b"[%b]" % b",".join(matrix_json(states) for states in encoding.vectors)
    )
    headers = {"x-compute-tokens": str(sum(encoding.tokens))}
    return Response(content, headers=headers, media_type="application/json")


@router.post("/similarity", responses={200: {"model": list[float]}}, openapi_extra=body_of(SimilarityRequest))
async def similarity(request: Request) -> Response:
    """Compare one sentence with others by the cosine of their vectors."""
    body = await read_body(request, SimilarityRequest)
    source, sentences = body.inputs.source_sentence, body.inputs.sentences
    check_batch(sentences, _limit(request), field="inputs.sentences")
    parameters = body.parameters
    options = EncodeOptions(prompt_name=parameters.prompt_name, truncate=parameters.truncation())
    values, left, right = await cosines(
        request,
        await _default(request),
        Side([source], options, "inputs.source_sentence".format),
        Side(sentences, options, "inputs.sentences[{}]".format),
    )
    headers = timing_headers(replace(right, tokens=left.tokens + right.tokens), [source, *sentences])
    return Response(number_rows(values[None])[0], headers=headers, media_type="application/json")


@router.post("/rerank", responses={200: {"model": list[Rank]}}, openapi_extra=body_of(RerankRequest))
async def rerank(request: Request) -> Response:
    """Order texts by how well they answer the query, best first.

    With a reranker a score is the sigmoid of its logit (raw_scores: the logit). Without one it is the cosine
    of the vectors; query and texts take the embedding model's prompts for these roles.
    """
    body = await read_body(request, RerankRequest)
    check_batch(body.texts, _limit(request), field="texts")
    ranked = Ranked(body.query, body.texts, "texts", truncate=body.truncation())
    ranking = await rank(request, ranked)
    scores = ranking.raw if body.raw_scores or ranking.kind == "cosine" else ranking.relevance()
    ranks = [
        {"index": row, "score": float(scores[row])} | ({"text": body.texts[row]} if body.return_text else {})
        for row in ranking.best_first()
    ]
    return Response(
        orjson.dumps(ranks), headers=timing_headers(ranking, ranked.all), media_type="application/json"
    )


@router.post(
    "/tokenize", responses={200: {"model": list[list[Token]]}}, openapi_extra=body_of(TokenizeRequest)
)
async def tokenize(request: Request) -> Response:
    """Show the tokens of texts; start and stop count bytes of the text in UTF-8, prompt included."""
    body = await read_body(request, TokenizeRequest)
    check_batch(body.inputs, _limit(request), field="inputs")
    check_texts(body.inputs)
    encoder = (await _default(request)).encoder
    lead = encoder.lead(EncodeOptions(prompt_name=body.prompt_name))

    def answer() -> bytes:
        texts = [lead + text for text in body.inputs]
        return orjson.dumps(
            [_tokens(encoder.tokenizer, text, special=body.add_special_tokens) for text in texts]
        )

    return Response(await asyncio.to_thread(answer), media_type="application/json")


@router.post("/decode", responses={200: {"model": list[str]}}, openapi_extra=body_of(DecodeRequest))
async def decode_ids(request: Request) -> Response:
    """Return the texts that lists of token ids stand for."""
    body = await read_body(request, DecodeRequest)
    check_batch(body.ids, _limit(request), field="ids")
    decode = (await _default(request)).encoder.tokenizer.decode
    skip = body.skip_special_tokens
    texts = await asyncio.to_thread(lambda: [decode(ids, skip_special_tokens=skip) for ids in body.ids])
    return Response(orjson.dumps(texts), media_type="application/json")


@router.post("/predict", include_in_schema=False)
@router.post("/embed_sparse", include_in_schema=False)
async def needs_another_model(request: Request) -> Response:
    """Say, as text-embeddings-inference does, that the model is of another kind."""
    kind = "a classifier" if request.url.path == "/predict" else "a sparse embedding"
    raise WrongModelError(f"the model is not {kind} model; this server serves dense embedding models")


@router.get("/info")
async def info(request: Request) -> Info:
    """Describe the default model and the limits of a request."""
    served, settings = await _default(request), state_of(request).settings
    runtime = served.encoder.runtime
    fingerprint = await asyncio.to_thread(lambda: served.folder.fingerprint)  # reads the weights once
    return Info(
        model_id=str(served.folder.name),
        model_sha=fingerprint,
        model_dtype=served.folder.precision,
        served_model_name=served.name,
        model_type={"embedding": {"pooling": _pooling(served)}},
        max_concurrent_requests=settings.max_queue_texts,
        max_input_length=runtime.max_tokens and runtime.max_tokens + runtime.special_tokens,
        max_batch_tokens=settings.batch_tokens or runtime.batch_tokens,
        max_client_batch_size=settings.max_batch_texts,
        tokenization_workers=2,
        version=__version__,
    )


def _limit(request: Request) -> int:
    return state_of(request).settings.max_batch_texts


async def _default(request: Request) -> ServedModel:
    return await state_of(request).models.get(None)


async def _texts(request: Request, served: ServedModel, inputs: list[str | list[int]]) -> list[str]:
    """Return the inputs as texts; token ids become the text they stand for, as in the original."""
    check_batch(inputs, _limit(request), field="inputs")
    if all(isinstance(part, str) for part in inputs):
        return [str(part) for part in inputs]
    tokenizer = served.encoder.tokenizer
    return await asyncio.to_thread(
        lambda: [
            part if isinstance(part, str) else _text_of(tokenizer, part, f"inputs[{position}]")
            for position, part in enumerate(inputs)
        ]
    )


def _text_of(tokenizer: TextTokenizer, ids: list[int], name: str) -> str:
    """Return the text of token ids; raise InvalidInputError when its tokens are others than these."""
    text = tokenizer.decode(ids)
    inner = tokenizer.ids([text])[0]
    if ids not in (inner, tokenizer.prefix + inner + tokenizer.suffix):
        raise InvalidInputError(
            f"{name}: these token ids stand for {text!r}, which has other tokens; send the text",
            param="inputs",
        )
    return text


def _tokens(tokenizer: TextTokenizer, text: str, *, special: bool) -> list[dict[str, Any]]:
    """Return the tokens of a text; the original is written in Rust, whose strings count bytes."""
    bytes_before = [0, *accumulate(len(character.encode()) for character in text)]
    return [
        {"id": token.id, "text": token.text, "special": True, "start": None, "stop": None}
        if token.special
        else {
            "id": token.id,
            "text": text[token.begin : token.end],
            "special": False,
            "start": bytes_before[token.begin],
            "stop": bytes_before[token.end],
        }
        for token in tokenizer.tokens(text, special_tokens=special)
    ]


def _pooling(served: ServedModel) -> str:
    pooling = next((module for module in served.folder.modules if module.kind == "Pooling"), None)
    return "mean" if pooling is None else "+".join(read_pooling(pooling).modes)
