"""Vectors that come with documents and queries: JSON numbers or base64 float32, checked number by number."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError


def decode_vector(value: object, where: str) -> NDArray[np.float32]:
    """Return the vector (dim,) given as numbers, as base64 of little-endian float32, or as a 1-d array.

    ``where`` is what errors call it. The dimension is for the caller to check.
    Raises InvalidInputError for what is no such vector, is empty, has no direction (all zeros), or holds
    a number that is not finite as float32, naming its position.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 1:
        # One product says of an array that is as it should be that every number is finite and some are not 0.
        with np.errstate(all="ignore"):
            squares = float(value @ value)
        if 0 < squares < np.inf:
            return value
    if isinstance(value, str):
        vector = _from_base64(value, where)
    elif isinstance(value, np.ndarray):
        vector = _from_array(value, where)
    elif isinstance(value, list | tuple):
        vector = _from_numbers(value, where)
    else:
        raise _bad(f"{where} is {type(value).__name__}; a list of numbers or base64 of float32 expected")
    if not len(vector):
        raise _bad(f"{where} is empty")
    finite = np.isfinite(vector)
    if not finite.all():
        position = int(finite.argmin())
        raise _bad(f"{where}[{position}] is {vector[position]}; finite numbers expected (float32)")
    if not vector.any():
        raise _bad(f"{where} is all zeros; it has no direction")
    return vector


def _from_numbers(numbers: list[object] | tuple[object, ...], where: str) -> NDArray[np.float32]:
    for position, number in enumerate(numbers):
        if isinstance(number, bool | np.bool_) or not isinstance(number, int | float | np.number):
            raise _bad(f"{where}[{position}] is {type(number).__name__}, not a number")
    try:
        return _narrow(np.array(numbers, np.float64))
    except (OverflowError, TypeError, ValueError) as error:
        raise _bad(f"{where} holds a number that is no float32: {error}") from error


def _from_base64(text: str, where: str) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"{where} is not base64: {error}") from error
    if len(data) % 4:
        raise _bad(f"{where} has {len(data)} bytes; float32 numbers have 4 each")
    return np.frombuffer(data, "<f4").astype(np.float32)


def _from_array(array: NDArray[np.generic], where: str) -> NDArray[np.float32]:
    if array.ndim != 1:
        raise _bad(f"{where} has {array.ndim} dimensions; an array of one expected")
    if array.dtype.kind not in "fiu":
        raise _bad(f"{where} is an array of {array.dtype}; numbers expected")
    return _narrow(array)


def _narrow(numbers: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return a copy as float32; what is too large for that becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32)


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError(message, param="vector")
