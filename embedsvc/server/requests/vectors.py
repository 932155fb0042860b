"""Vectors in requests: a list of numbers, or base64 of little-endian float32."""

from __future__ import annotations

import binascii
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

_FLOAT32 = np.dtype("<f4")
_LARGEST = float(np.finfo(np.float32).max)
_ONE = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 1},
        {"type": "string", "minLength": 1, "description": "Base64 of little-endian float32."},
    ]
}


def _vector(given: Any) -> NDArray[np.float32]:
    """Return a vector (dim,); raise ValueError saying what is wrong with it."""
    if isinstance(given, str):
        return _finite(_decoded(given))
    if not isinstance(given, list):
        raise ValueError("a list of numbers, or base64 of float32, is expected")
    if not given:
        raise ValueError("the list is empty")
    for place, value in enumerate(given):
        if type(value) not in (int, float):
            raise ValueError(f"number {place} is {value!r:.40}, which is no number")
    return _finite(np.array([_bounded(value) for value in given]))


def _vectors(given: Any) -> NDArray[np.float32] | list[NDArray[np.float32]]:
    """Return a vector (dim,) or a list of them, as it was given."""
    if isinstance(given, list) and given and isinstance(given[0], list | str):
        vectors = []
        for position, one in enumerate(given):
            try:
                vectors.append(_vector(one))
            except ValueError as error:
                raise ValueError(f"vector {position}: {error}") from error
        return vectors
    return _vector(given)


def _bounded(value: float) -> float:
    """Return a number that NumPy can hold; an integer may have thousands of digits."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    wrong = np.flatnonzero(~(np.abs(values) <= _LARGEST))
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(f"number {place} is {values[place]:g}; finite numbers of float32 are expected")
    return values.astype(np.float32)


def _decoded(given: str) -> NDArray[Any]:
    try:
        content = binascii.a2b_base64(given.encode("ascii"), strict_mode=True)
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are ones
        raise ValueError(f"the string is not base64: {error}") from error
    if not content or len(content) % _FLOAT32.itemsize:
        raise ValueError(f"the base64 holds {len(content)} bytes; float32 numbers have 4 each")
    return np.frombuffer(content, _FLOAT32)


Vector = Annotated[Any, PlainValidator(_vector), WithJsonSchema(_ONE)]
Vectors = Annotated[
    Any,
    PlainValidator(_vectors),
    WithJsonSchema({"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}]}),
]
