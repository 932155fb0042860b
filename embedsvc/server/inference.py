"""What the encoding routes share: from checked request fields to an encoding, with the limits applied."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import Request

from embedsvc.encoder import Encoding, TokenEncoding
from embedsvc.errors import EmbedsvcError, InvalidInputError, ModelFailedError, OverloadedError
from embedsvc.options import EncodeOptions, Priority
from embedsvc.quantize import CALIBRATED, Calibration
from embedsvc.server.auth import charge_texts
from embedsvc.server.errors import EmptyBatchError
from embedsvc.server.models import ServedModel
from embedsvc.server.state import ServerState

Result = TypeVar("Result")
_MOST_TOKENS = 16_384  # of one request for token vectors: its answer is held in memory
_PLACE = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True)
class Asked:
    """How a request names the text at a position, how long it may wait, and behind whom."""

    place: Callable[[int], str] = "input[{}]".format
    priority: Priority | None = None
    timeout_ms: int | None = None


def state_of(request: Request) -> ServerState:
    """Return what the running server holds; cheaper than a dependency."""
    state: ServerState = request.app.state.server
    return state


def check_batch(texts: Sequence[object], limit: int, *, field: str) -> None:
    """Raise an InvalidInputError when a request has no texts, or more than ``limit``."""
    if not texts:
        raise EmptyBatchError(f"{field} is empty", param=field)
    if len(texts) > limit:
        raise InvalidInputError(f"{field} has {len(texts)} texts; max_batch_texts = {limit}", param=field)


async def encode_for(
    request: Request,
    served: ServedModel,
    texts: Sequence[str],
    options: EncodeOptions,
    asked: Asked = Asked(),
) -> Encoding:
    """Charge the client for its texts and return their encoding; errors name them as the request does."""
    charge_texts(request, len(texts))
    return await encode_charged(request, served, texts, options, asked)


async def encode_charged(
    request: Request, served: ServedModel, texts: Sequence[str], options: EncodeOptions, asked: Asked
) -> Encoding:
    """Like `encode_for`, for texts that the client has been charged for."""
    if options.output_dtype in CALIBRATED:
        await calibration_of(served)
    try:
        return await served.encode(
            texts,
            options,
            priority=asked.priority,
            timeout_s=None if asked.timeout_ms is None else asked.timeout_ms / 1000,
            client=request.state.client,
        )
    except (InvalidInputError, ModelFailedError) as error:
        raise _renamed(error, asked.place) from error


async def encode_tokens_for(
    request: Request,
    served: ServedModel,
    texts: Sequence[str],
    options: EncodeOptions,
    place: Callable[[int], str],
) -> TokenEncoding:
    """Charge the client for its texts and return the vectors of their tokens; one request at a time."""
    charge_texts(request, len(texts))
    encode = partial(served.encoder.encode_tokens, most_tokens=_MOST_TOKENS)
    try:
        return await state_of(request).token_vectors.run(encode, texts, options)
    except (InvalidInputError, ModelFailedError) as error:
        raise _renamed(error, place) from error


def _renamed(error: InvalidInputError | ModelFailedError, place: Callable[[int], str]) -> EmbedsvcError:
    """Return the error with the request's own name for the text at fault; the scheduler says ``input[3]``."""
    found = _PLACE.search(error.message)
    if found is None:
        return error
    name = place(int(found[1]))
    return type(error)(error.message.replace(found[0], name, 1), param=name.partition("[")[0])


async def calibration_of(served: ServedModel) -> Calibration:
    """Return the model's scale of int8 vectors; learning it, once, takes long enough for a thread."""
    return await asyncio.to_thread(lambda: served.encoder.calibration)


async def patiently(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Return what ``attempt`` returns; as long as it is refused as too much, wait and try again."""
    while True:
        try:
            return await attempt()
        except OverloadedError as error:
            await asyncio.sleep(error.retry_after)
