"""Vectors from outside: every form gives the same numbers, every bad one is refused by position."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.collections.vectors import decode_vector
from embedsvc.errors import InvalidInputError


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1).filter(any))
def test_every_form_gives_the_same_vector(numbers: list[float]) -> None:
    array = np.array(numbers, np.float64)
    base = packed(np.array(numbers, "<f4").tobytes())
    for given_ in (numbers, tuple(numbers), array, array.astype(np.float32), base):
        found = decode_vector(given_, "v")
        assert found.dtype == np.float32
        assert found.tolist() == numbers


def test_bytes_are_little_endian_and_integers_are_numbers() -> None:
    assert decode_vector(packed(b"\x00\x00\x80\x3f"), "v").tolist() == [1.0]
    assert decode_vector([1, np.float32(2), 3.5], "v").tolist() == [1.0, 2.0, 3.5]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, float("nan")], "v[1] is nan; finite numbers expected"),
        ([1.0, float("-inf"), float("nan")], "v[1] is -inf; finite numbers expected"),
        ([1e39], "v[0] is inf; finite numbers expected"),
        ([10**400], "v holds a number that is no float32"),
        (np.array([1e39, 1.0]), "v[0] is inf; finite numbers expected"),
        (packed(np.array([1, np.nan], "<f4").tobytes()), "v[1] is nan; finite numbers expected"),
        ([0.5, True], "v[1] is bool, not a number"),
        ([0.5, "1"], "v[1] is str, not a number"),
        ([0.5, None], "v[1] is NoneType, not a number"),
        ([[0.5]], "v[0] is list, not a number"),
        (np.array([True]), "v is an array of bool; numbers expected"),
        (np.array([1j]), "v is an array of complex128; numbers expected"),
        (np.ones((1, 2)), "v has 2 dimensions; an array of one expected"),
        ("AAA", "v is not base64: Incorrect padding"),
        ("AA=A!", "v is not base64"),
        ("ümlaut", "v is not base64"),
        (packed(b"12345"), "v has 5 bytes; float32 numbers have 4 each"),
        ("", "v is empty"),
        ([], "v is empty"),
        ([0, 0.0, 1e-60], "v is all zeros; it has no direction"),
        (b"AAAA", "v is bytes; a list of numbers or base64 of float32 expected"),
        ({"a": 1}, "v is dict; a list of numbers or base64 of float32 expected"),
        (None, "v is NoneType; a list of numbers or base64 of float32 expected"),
    ],
)
def test_bad_vector_is_refused_with_its_position(value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_vector(value, "v")
    assert message in caught.value.message
