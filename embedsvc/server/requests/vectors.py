"""Vectors in requests: a list of numbers, or base64 of little-endian float32; several are a list of those."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

from embedsvc.collections.vectors import decode_vector

_ONE = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 1},
        {"type": "string", "minLength": 1, "description": "Base64 of little-endian float32."},
    ]
}
_ONE_OR_MANY = {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}]}


def _vectors(given: Any) -> NDArray[np.float32] | list[NDArray[np.float32]]:
    """Return a vector (dim,) or a list of them, as it was given; raise InvalidInputError for a wrong one."""
    if isinstance(given, list) and given and isinstance(given[0], list | str):
        return [decode_vector(one, f"vector[{position}]") for position, one in enumerate(given)]
    return decode_vector(given, "vector")


Vector = Annotated[Any, WithJsonSchema(_ONE)]  # checked with the document that it belongs to
Vectors = Annotated[Any, PlainValidator(_vectors), WithJsonSchema(_ONE_OR_MANY)]
