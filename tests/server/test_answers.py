"""Vectors as JSON: by hand, and every number read back as it was."""

from __future__ import annotations

import asyncio
import base64
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedsvc.encoder import Encoding, Timings
from embedsvc.server.answers import embeddings_json, json_response, matrix_json, number_rows, timing_headers

TWO = Encoding(
    np.array([[0.5, -2.0], [1.0, 0.1]], np.float32),
    [3, 4],
    [False, True],
    Timings(tokenize_s=0.0012344, queue_s=0.0, inference_s=0.25, total_s=0.2519),
)


def test_json_by_hand():
    assert json.loads(embeddings_json(TWO, 'a "model"')) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -2.0]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.1], "truncated": True},
        ],
        "model": 'a "model"',
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    answer = json.loads(embeddings_json(TWO, "m", as_base64=True, timings=True))
    assert base64.b64decode(answer["data"][0]["embedding"]) == bytes.fromhex("0000003f 000000c0")
    assert answer["timings"] == {"tokenize_ms": 1.234, "queue_ms": 0, "inference_ms": 250, "total_ms": 251.9}


def test_no_vectors_are_an_empty_list():
    assert matrix_json(np.zeros((0, 3), np.float32)) == b"[]"


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_read_back_exactly(vectors):
    read = np.array(json.loads(matrix_json(vectors)), np.float64).astype(np.float32)
    np.testing.assert_array_equal(read, vectors)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_every_type_and_layout_reads_back(dtype):
    vectors = (np.random.default_rng(2).standard_normal((3, 5)) * 50).clip(0).astype(dtype)
    for given_ in (vectors, np.asfortranarray(vectors)):
        encoding = Encoding(given_, [1] * 3, [False] * 3)
        for as_base64 in (True, False):
            items = json.loads(embeddings_json(encoding, "m", as_base64=as_base64))["data"]
            rows = [item["embedding"] for item in items]
            if as_base64:
                rows = [np.frombuffer(base64.b64decode(row), dtype) for row in rows]
            np.testing.assert_array_equal(np.array(rows, dtype), vectors)
    assert all(b"." not in row for row in number_rows(vectors)) == (dtype in ("int8", "uint8"))


def test_headers_say_where_the_time_went():
    assert timing_headers(TWO, ["ab", "ñ语"]) == {
        "x-total-time": "252",
        "x-tokenization-time": "1",
        "x-queue-time": "0",
        "x-inference-time": "250",
        "x-compute-tokens": "7",
        "x-compute-characters": "4",
        "server-timing": "tokenize;dur=1.234, queue;dur=0, inference;dur=250, total;dur=251.9",
    }


@pytest.mark.parametrize(("rows", "inline"), [(16, True), (17, False)])
def test_only_large_answers_leave_the_event_loop(rows, inline):
    threads = []

    def build() -> bytes:
        threads.append(threading.current_thread())
        return b"{}"

    vectors = np.zeros((rows, 1024), np.float32)
    response = asyncio.run(json_response(build, vectors, {"x-total-time": "1"}))
    assert (threads[0] is threading.main_thread()) == inline
    assert (response.body, response.headers["x-total-time"]) == (b"{}", "1")
