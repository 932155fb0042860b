"""Lists of texts in memory: their vectors, and the neighbours of two lists of vectors."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.encoder import Encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.tokens import Truncate
from indexing import BothWays, VectorError, nearest_both_ways

_ENCODE_TEXTS = 8_192  # texts given to the encoder at once: one step of the progress bar
_PROGRESS_TEXTS = 20_000  # fewer texts than this show no bar unless asked


class EncodingOptions(TypedDict):
    """Options of `Encoder.encode`."""

    prompt_name: str | None
    prompt: str | None
    dimensions: int | None
    truncate: Truncate
    batch_tokens: int | None


def check_shape(vectors: NDArray[Any], count: int, name: str) -> None:
    """Raise InvalidInputError unless there is one row per text of the list ``name``."""
    if vectors.ndim != 2 or len(vectors) != count:
        raise InvalidInputError(
            f"{name}_vectors have shape {vectors.shape}; expected ({count}, dim), one row per text",
            param=f"{name}_vectors",
        )


def encoded_rows(
    encoder: Encoder,
    name: str,
    texts: Sequence[str],
    rows: NDArray[np.int64],
    options: EncodingOptions,
    progress: bool | None,
) -> NDArray[np.float32]:
    """Return the vectors ``(len(rows), dim)`` of the texts at ``rows``; zero where no token is known.

    Raises InvalidInputError naming the text in the list ``name`` that is refused.
    """
    chunks = []
    with _bar(f"encode {name}", len(rows), progress) as bar:
        for begin in range(0, len(rows), _ENCODE_TEXTS):
            chunk = rows[begin : begin + _ENCODE_TEXTS].tolist()
            try:
                vectors = encoder.encode([texts[row] for row in chunk], progress=False, **options)
            except InvalidInputError as error:
                raise _located(error, name, chunk) from error
            chunks.append(vectors)
            bar.update(len(chunk))
    return np.concatenate(chunks)


def _located(error: InvalidInputError, name: str, rows: list[int]) -> InvalidInputError:
    """The encoder's error about the n-th text it was given, as an error about the caller's text."""
    message = re.sub(r"\binput\[(\d+)\]", lambda found: f"{name}[{rows[int(found[1])]}]", error.message)
    return type(error)(message, param=error.param)


def in_memory_neighbours(x: NDArray[Any], y: NDArray[Any], k: int, progress: bool | None) -> BothWays:
    """Return the neighbours of sources ``(n, dim)`` and targets ``(m, dim)`` among each other.

    Raises DimensionMismatchError, and InvalidInputError for vectors not of length 1.
    """
    if x.shape[1] != y.shape[1]:
        raise DimensionMismatchError(
            f"source vectors have {x.shape[1]} dimensions, target vectors {y.shape[1]}"
        )
    with _bar("neighbours", len(x), progress) as bar:
        try:
            return nearest_both_ways(x, y, k, progress=lambda done, _: bar.update(done - bar.n))
        except VectorError as error:
            raise InvalidInputError(f"the vectors cannot be mined: {error}") from error


def _bar(stage: str, total: int, wanted: bool | None) -> Any:
    show = wanted if wanted is not None else total >= _PROGRESS_TEXTS and sys.stderr.isatty()
    return tqdm(total=total, desc=stage, unit="text", disable=not show)
