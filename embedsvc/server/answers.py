"""Vectors as answers: JSON built as bytes, row by row, without a Python number per coordinate."""

from __future__ import annotations

import asyncio
import json
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from fastapi import Response
from numpy.typing import NDArray

from embedsvc.encoder import Encoding, Timings

_INLINE_BYTES = 64 * 1024  # of vectors; more is written in a thread, so that nobody waits for it


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON; arrays as lists, integers of any size."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # an integer of more than 64 bits in a document's metadata
        return json.dumps(value, ensure_ascii=False, default=np.ndarray.tolist).encode()


def number_rows(vectors: NDArray[Any]) -> list[bytes]:
    """Return each row as a JSON list; the shortest decimals that read back as the same numbers."""
    rows = np.ascontiguousarray(vectors)
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


def base64_rows(vectors: NDArray[Any]) -> list[bytes]:
    """Return each row as a JSON string: base64 of its bytes, little-endian."""
    wire = np.ascontiguousarray(vectors, vectors.dtype.newbyteorder("<"))
    return [b'"%b"' % b2a_base64(row, newline=False) for row in wire]


def matrix_json(vectors: NDArray[Any]) -> bytes:
    """Return the rows as one JSON list of lists."""
    return b"[%b]" % b",".join(number_rows(vectors))


def embeddings_json(
    encoding: Encoding, model: str, *, as_base64: bool = False, timings: bool = False
) -> bytes:
    """Return OpenAI's embeddings list; an item whose text was cut says so, ``timings`` adds milliseconds."""
    values = base64_rows(encoding.vectors) if as_base64 else number_rows(encoding.vectors)
    items = [
        b'{"object":"embedding","index":%d,"embedding":%b%b}'
        % (index, value, b',"truncated":true' if truncated else b"")
        for index, (value, truncated) in enumerate(zip(values, encoding.truncated, strict=True))
    ]
    tokens = sum(encoding.tokens)
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}%b}' % (
        b",".join(items),
        orjson.dumps(model),
        tokens,
        tokens,
        b',"timings":%b' % orjson.dumps(timings_ms(encoding.timings)) if timings else b"",
    )


def timings_ms(timings: Timings) -> dict[str, float]:
    """Return where the time went, in milliseconds."""
    return {
        "tokenize_ms": round(timings.tokenize_s * 1000, 3),
        "queue_ms": round(timings.queue_s * 1000, 3),
        "inference_ms": round(timings.inference_s * 1000, 3),
        "total_ms": round(timings.total_s * 1000, 3),
    }


class Measured(Protocol):
    """What timing headers are about."""

    @property
    def tokens(self) -> list[int]: ...
    @property
    def timings(self) -> Timings: ...


def timing_headers(done: Measured, texts: Sequence[str]) -> dict[str, str]:
    """Return the headers of text-embeddings-inference (whole milliseconds) and Server-Timing (exact)."""
    spent = timings_ms(done.timings)
    return {
        "x-total-time": f"{spent['total_ms']:.0f}",
        "x-tokenization-time": f"{spent['tokenize_ms']:.0f}",
        "x-queue-time": f"{spent['queue_ms']:.0f}",
        "x-inference-time": f"{spent['inference_ms']:.0f}",
        "x-compute-tokens": str(sum(done.tokens)),
        "x-compute-characters": str(sum(map(len, texts))),
        "server-timing": ", ".join(f"{stage[:-3]};dur={spent[stage]:g}" for stage in spent),
    }


async def json_response(
    build: Callable[[], bytes], vectors: NDArray[Any], headers: dict[str, str]
) -> Response:
    """Return what ``build`` writes from the vectors; a large answer is written in a thread."""
    content = build() if vectors.nbytes <= _INLINE_BYTES else await asyncio.to_thread(build)
    return Response(content, headers=headers, media_type="application/json")
