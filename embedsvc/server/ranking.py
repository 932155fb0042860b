"""How well texts answer a query: by the reranker where there is one, else by the cosine of their vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from embedsvc.encoder import Encoding, Timings, check_texts
from embedsvc.errors import EmbedsvcError, InvalidInputError, ModelFailedError
from embedsvc.options import EncodeOptions
from embedsvc.reranker import ScoreOptions, activated
from embedsvc.server.auth import charge_texts
from embedsvc.server.errors import ModelNotFoundError
from embedsvc.server.inference import Asked, encode_for, state_of
from embedsvc.server.models import ServedModel
from embedsvc.server.reranking import Reranking
from embedsvc.tokens import Truncate


@dataclass(frozen=True)
class Ranked:
    """What a request wants ranked; ``field`` is its name for the texts."""

    query: str
    texts: list[str]
    field: str
    truncate: Truncate = "end"
    max_text_tokens: int | None = None

    @property
    def all(self) -> list[str]:
        return [self.query, *self.texts]


@dataclass(frozen=True)
class Ranking:
    """A raw score for each text (n,): the reranker's logit, or a cosine; and what it took."""

    raw: NDArray[np.float32]
    kind: Literal["logit", "cosine"]
    tokens: list[int]  # that were read, the query's too
    cut: list[str]  # a sentence for each text that was cut
    timings: Timings

    def best_first(self) -> list[int]:
        """Return the positions of the texts by falling score; of equals the first is first."""
        return [int(row) for row in np.argsort(-self.raw, kind="stable")]

    def relevance(self) -> NDArray[np.float32]:
        """Return scores from 0 to 1: the sigmoid of a logit, (1 + cosine) / 2."""
        if self.kind == "logit":
            return activated(self.raw, "sigmoid")
        return np.asarray((1 + self.raw) / 2, np.float32)


async def rank(request: Request, ranked: Ranked, model: str | None = None) -> Ranking:
    """Charge the client for the texts and rank them; errors name them as the request does.

    ``model`` is the reranker's name or, on a server without one, that of an embedding model. Raises
    ModelNotFoundError for another.
    """
    state = state_of(request)
    if state.reranking is None:
        return await _by_cosine(request, await state.models.get(model), ranked)
    name = state.reranking.reranker.name
    if model not in (None, name, state.settings.reranker):
        raise ModelNotFoundError(f"no reranker {model!r}; this server has: {name}", param="model")
    return await _by_reranker(request, state.reranking, ranked)


async def _by_reranker(request: Request, reranking: Reranking, ranked: Ranked) -> Ranking:
    check_texts(ranked.texts, name=ranked.field)
    charge_texts(request, len(ranked.texts))
    options = ScoreOptions(ranked.truncate, ranked.max_text_tokens, raw=True)
    try:
        scoring, timings = await reranking.score(ranked.query, ranked.texts, options)
    except (InvalidInputError, ModelFailedError) as error:
        raise _renamed(error, ranked.field) from error
    return Ranking(
        scoring.scores,
        "logit",
        scoring.tokens,
        _cut(ranked.field, scoring.tokens, scoring.truncated, "tokens with the query"),
        timings,
    )


def _renamed(error: InvalidInputError | ModelFailedError, field: str) -> EmbedsvcError:
    """Return the error with the request's own name for the texts; the reranker calls them ``texts``."""
    if field == "texts" or error.param == "query":
        return error
    param = field if error.param == "texts" else error.param
    return type(error)(error.message.replace("texts[", f"{field}[", 1), param=param)


async def _by_cosine(request: Request, served: ServedModel, ranked: Ranked) -> Ranking:
    special = served.encoder.runtime.special_tokens
    most = None if ranked.max_text_tokens is None else ranked.max_text_tokens + special
    document = EncodeOptions(input_type="document", truncate=ranked.truncate, max_tokens=most)
    scores, left, right = await cosines(
        request,
        served,
        Side([ranked.query], EncodeOptions(input_type="query", truncate=ranked.truncate), "query".format),
        Side(ranked.texts, document, (ranked.field + "[{}]").format),
    )
    cut = _cut(ranked.field, right.tokens, right.truncated, "tokens")
    return Ranking(scores, "cosine", left.tokens + right.tokens, cut, right.timings)


def _cut(field: str, tokens: Sequence[int], truncated: Sequence[bool], unit: str) -> list[str]:
    return [
        f"{field}[{position}] has {count} {unit} and was cut"
        for position, (count, cut) in enumerate(zip(tokens, truncated, strict=True))
        if cut
    ]


@dataclass(frozen=True)
class Side:
    """Texts to compare, how they are encoded, and how the request names them."""

    texts: list[str]
    options: EncodeOptions
    place: Callable[[int], str]


async def cosines(
    request: Request, served: ServedModel, one: Side, many: Side
) -> tuple[NDArray[np.float32], Encoding, Encoding]:
    """Return the cosines (n,) of many texts to one, and both encodings."""
    left, right = await asyncio.gather(
        *(encode_for(request, served, side.texts, side.options, Asked(side.place)) for side in (one, many))
    )
    return np.clip(right.vectors @ left.vectors[0], -1, 1), left, right
