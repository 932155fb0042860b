"""What the encoding routes share: from checked request fields to an encoding, with the limits applied."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request

from embedsvc.encoder import Encoding
from embedsvc.errors import InvalidInputError, ModelFailedError
from embedsvc.options import EncodeOptions, Priority
from embedsvc.quantize import CALIBRATED, Calibration
from embedsvc.server.errors import EmptyBatchError
from embedsvc.server.models import ServedModel
from embedsvc.server.state import ServerState

_PLACE = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True)
class Asked:
    """How a request names its texts ({} is the position), how long it may wait, and behind whom."""

    place: str = "input[{}]"
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
    """Return the encoding of texts for the client of a request; errors name the texts as it does."""
    if options.output_dtype in CALIBRATED:
        await calibration_of(served)
    try:
        return await served.encode(
            texts,
            options,
            priority=asked.priority,
            timeout_s=None if asked.timeout_ms is None else asked.timeout_ms / 1000,
            client=_client(request),
        )
    except (InvalidInputError, ModelFailedError) as error:
        message = _PLACE.sub(lambda match: asked.place.format(match[1]), error.message, count=1)
        param = asked.place.partition("[")[0] if error.param == "input" else error.param
        raise type(error)(message, param=param) from error


async def calibration_of(served: ServedModel) -> Calibration:
    """Return the model's scale of int8 vectors; learning it, once, takes long enough for a thread."""
    return await asyncio.to_thread(lambda: served.encoder.calibration)


def _client(request: Request) -> str:
    """Return the name of the API key, else the address, by which clients take turns."""
    named = request.scope.get("state", {}).get("client")
    return str(named) if named else request.client.host if request.client else ""
