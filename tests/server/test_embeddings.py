from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import fields
from inspect import signature

import numpy as np
import pytest

from embedsvc.encoder import Encoder
from embedsvc.options import EncodeOptions
from embedsvc.server.requests.openai import EncodeFields
from tests.scheduling.toy_runtime import ToyRuntime, toy_encoder
from tests.server.conftest import error_of

TEXTS = ["a", "Guten Morgen, liebe Sorgen", "صباح الخير", "今天天气很好,我们去公园散步吧。" * 5]


def vectors_of(response, as_base64=False) -> np.ndarray:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    rows = [item["embedding"] for item in data]
    if as_base64:
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return np.array(rows, np.float32)


def test_floats_and_base64_are_the_vectors_of_the_encoder(client, encoder):
    expected = encoder.encode(TEXTS)
    body = {"input": TEXTS, "model": "embedsvc-default", "user": "somebody"}
    as_floats = client.post("/v1/embeddings", body)
    as_base64 = client.post("/v1/embeddings", {**body, "encoding_format": "base64"})
    np.testing.assert_array_equal(vectors_of(as_floats), expected)
    np.testing.assert_array_equal(vectors_of(as_base64, as_base64=True), expected)
    tokens = sum(encoder.encode_with_usage(TEXTS).tokens)
    answer = as_floats.json()
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer["object"], answer["model"]) == ("list", "embedsvc-default")
    assert answer["data"][0].keys() == {"object", "index", "embedding"}


def test_one_text_is_a_list_of_one(client, encoder):
    response = client.post("/v1/embeddings", {"input": "hello there"})
    np.testing.assert_array_equal(vectors_of(response), encoder.encode(["hello there"]))


def test_options_reach_the_encoder(client, encoder):
    for options in (
        {"dimensions": 64},
        {"normalize": False},
        {"prompt": "search: "},
        {"dimensions": 64, "normalize": False, "prompt": "x ", "truncate": "end"},
    ):
        response = client.post("/v1/embeddings", {"input": TEXTS, **options})
        np.testing.assert_array_equal(vectors_of(response), encoder.encode(TEXTS, **options))


def test_prompt_names_and_cut_texts(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    body = {"input": ["abc", "d" * 20], "prompt_name": "query", "truncate": "start"}
    response = client.post("/v1/embeddings", body)
    np.testing.assert_array_equal(
        vectors_of(response), encoder.encode(body["input"], prompt_name="query", truncate="start")
    )
    assert [item.get("truncated") for item in response.json()["data"]] == [None, True]
    assert response.json()["usage"]["prompt_tokens"] == (3 + 2 + 2) + (20 + 2 + 2)
    error = error_of(client.post("/v1/embeddings", {"input": ["abc", "d" * 20]}), 400, "text_too_long")
    assert error["message"].startswith("input[1] has 20 tokens; the limit is 12")


def test_every_option_of_the_encoder_is_a_field(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    for options in (
        {"input_type": "query"},
        {"prompt": "x"},
        {"dimensions": 2},
        {"dimensions": 3, "force_dimensions": True, "normalize": False},
        {"max_tokens": 3, "truncate": "end"},
        {"output_dtype": "float16"},
        {"output_dtype": "int8"},
        {"output_dtype": "uint8", "dimensions": 2},
        {"output_dtype": "binary"},
        {"output_dtype": "ubinary", "normalize": False},
    ):
        expected = encoder.encode(["abc", "defghij"], **options)
        for as_base64 in (False, True):
            extra = {"encoding_format": "base64"} if as_base64 else {}
            body = {"input": ["abc", "defghij"], **options, **extra}
            rows = [item["embedding"] for item in client.post("/embeddings", body).json()["data"]]
            if as_base64:
                rows = [np.frombuffer(base64.b64decode(row), expected.dtype) for row in rows]
            np.testing.assert_array_equal(np.array(rows, expected.dtype), expected)


def test_fields_of_the_request_are_the_options_of_the_encoder():
    assert {field.name for field in fields(EncodeOptions)} == set(EncodeFields.model_fields)
    for field in fields(EncodeOptions):
        assert EncodeFields.model_fields[field.name].default == field.default
    assert set(EncodeFields.model_fields) < set(signature(Encoder.encode).parameters)


def test_where_the_time_went(client):
    response = client.post("/v1/embeddings", {"input": "ñandú", "timings": True})
    timings = response.json()["timings"]
    assert set(timings) == {"tokenize_ms", "queue_ms", "inference_ms", "total_ms"}
    assert 0 < timings["inference_ms"] <= timings["total_ms"]
    assert response.headers["x-compute-characters"] == "5"
    assert response.headers["x-compute-tokens"] == str(response.json()["usage"]["total_tokens"])
    assert f"inference;dur={timings['inference_ms']:g}," in response.headers["server-timing"]
    assert "timings" not in client.post("/v1/embeddings", {"input": "a"}).json()


def test_a_request_is_given_up_when_it_says_so(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime))
    runtime.open.clear()
    response = client.post("/v1/embeddings", {"input": "a", "timeout_ms": 50, "priority": "bulk"})
    runtime.open.set()
    assert error_of(response, 503, "timeout")["message"] == "the texts were not encoded within 0.05 s"


def test_a_nul_inside_a_text_is_a_character_like_others(client, encoder):
    response = client.post("/v1/embeddings", {"input": ["be\0fore"]})
    np.testing.assert_array_equal(vectors_of(response), encoder.encode(["be\0fore"]))


def test_concurrent_requests_get_their_own_vectors(client, encoder):
    inputs = [[f"text {i} " * (i % 9 + 1)] * (i % 3 + 1) for i in range(32)]

    async def run():
        return await asyncio.gather(
            *[client.http.post("/v1/embeddings", json={"input": one}) for one in inputs]
        )

    for texts, response in zip(inputs, client.run(run()), strict=True):
        np.testing.assert_array_equal(vectors_of(response), encoder.encode(texts))


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "input is missing", "input"),
        ({"input": None}, "input: a string or a list of strings is expected", "input"),
        ({"input": 7}, "input: a string or a list of strings is expected", "input"),
        ({"input": {"a": 1}}, "input: a string or a list of strings is expected", "input"),
        ({"input": []}, "input: the list is empty", "input"),
        ({"input": ""}, "input[0] is empty", "input"),
        ({"input": ["a", " \n\t"]}, "input[1] is empty", "input"),
        ({"input": ["a", None]}, "input[1] is null, not a string", "input"),
        ({"input": ["a", 3]}, "input[1] is a number, not a string", "input"),
        ({"input": ["a", ["b"]]}, "input[1] is a list, not a string", "input"),
        ({"input": [1, 2]}, "input: token ids are not taken", "input"),
        ({"input": [[1, 2]]}, "input: token ids are not taken", "input"),
        ({"input": ["a"] * 65}, "input has 65 texts; max_batch_texts = 64", "input"),
        ({"input": "a", "model": 3}, "model is a number, not a string", "model"),
        ({"input": "a", "dimensions": 0}, "dimensions = 0; model", "dimensions"),
        ({"input": "a", "dimensions": 10**30}, "dimensions is a number, not a whole", "dimensions"),
        ({"input": "a", "dimensions": "64"}, "dimensions is a string, not a whole", "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions is a boolean, not", "dimensions"),
        ({"input": "a", "prompt_name": "x"}, "prompt_name 'x' is unknown to", "prompt_name"),
        ({"input": "a", "prompt_name": "x", "prompt": "y"}, "give prompt_name or prompt, not both", "prompt"),
        ({"input": "a", "normalize": 1}, "normalize is a number, not true or", "normalize"),
        ({"input": "a", "output_dtype": "int4"}, "output_dtype is 'int4'; expected", "output_dtype"),
        ({"input": "a", "output_dtype": "int8", "normalize": False}, "output_dtype int8 is", "normalize"),
        ({"input": "a", "input_type": "title"}, "input_type is 'title'; expected 'query'", "input_type"),
        ({"input": "a", "max_tokens": 0}, "max_tokens = 0; at least 1", "max_tokens"),
        ({"input": "a", "timeout_ms": 0}, "timeout_ms is 0; it must be at least 1", "timeout_ms"),
        ({"input": "a", "priority": "high"}, "priority is 'high'; expected", "priority"),
        ({"input": "a", "truncate": "mid"}, "truncate is 'mid'; expected 'none'", "truncate"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format is 'hex'; ", "encoding_format"),
        ({"input": "a", "dimension": 5}, "unknown field 'dimension'; did you mean 'dim", None),
        (["a"], "the body is a list, not an object", None),
        ("a", "the body is a string, not an object", None),
    ],
)
def test_bad_requests_are_explained(client, body, message, param):
    error = error_of(client.post("/v1/embeddings", body), 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the body is empty; a JSON object is expected"),
        (b'{"input": "a"', "the body is not valid JSON: Expecting ',' delimiter at character 13"),
        (b"{'input': 'a'}", "the body is not valid JSON: "),
        (b'{"input": "\xff\xfe"}', "the body is not valid JSON in UTF-8"),
        (b'{"input": "a\\ud800"}', "input[0] holds a lone surrogate at character 1"),
        (b'{"input": "a", "prompt": "\\udfff"}', "prompt holds a lone surrogate at character 0"),
        (b'{"input": "a", "\\ud800": 1}', "unknown field '\\ud800'"),
        (b'{"input": ' + b"[" * 100_000, "the body is not valid JSON in UTF-8"),
        (b'{"input": "a", "dimensions": NaN}', "dimensions is a number, not a whole number"),
        (b'{"input": "a", "dimensions": 1.5}', "dimensions is a number, not a whole number"),
        (b"null", "the body is null, not an object"),
    ],
)
def test_broken_bodies_are_explained(client, content, message):
    response = client.request(
        "POST", "/v1/embeddings", content=content, headers={"Content-Type": "application/json"}
    )
    assert error_of(response, 400, "invalid_input")["message"].startswith(message)


def test_a_body_that_is_not_declared_json_is_explained(client):
    response = client.request("POST", "/v1/embeddings", data={"input": "a"})
    assert "Content-Type: application/json" in error_of(response, 400, "invalid_input")["message"]


def test_a_full_queue_answers_429_with_retry_after(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime), max_queue_texts=2, max_batch_texts=2)
    runtime.entered.clear()
    runtime.open.clear()

    async def run():
        post = client.http.post
        first = asyncio.create_task(post("/v1/embeddings", json={"input": "a"}))
        await asyncio.to_thread(runtime.entered.wait, 10)
        second = asyncio.create_task(post("/v1/embeddings", json={"input": ["b", "c"]}))
        while client.app.state.server.models.default.waiting_texts("interactive") < 2:
            await asyncio.sleep(0)
        scrape = (await client.http.get("/metrics")).text
        refused = await post("/v1/embeddings", json={"input": "d"})
        unread = await post("/v1/embeddings", content=b"{", headers={"Content-Type": "application/json"})
        assert unread.status_code == 429  # before anything is parsed
        bulk = await post("/v1/embeddings", json={"input": "d" * 20_000, "priority": "bulk"})
        assert bulk.status_code == 400  # too long, but its lane has room
        runtime.open.set()
        return scrape, refused, await first, await second

    scrape, refused, first, second = client.run(run())
    assert re.search(r'embedsvc_queue_texts{lane="interactive",.*} 2.0', scrape)
    assert error_of(refused, 429, "overloaded")["type"] == "overloaded_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert (first.status_code, second.status_code) == (200, 200)


def test_an_unknown_model_names_the_known_one(client):
    response = client.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"})
    error = error_of(response, 404, "model_not_found")
    assert error["message"] == ("no model 'text-embedding-3-small'; this server has: embedsvc-default")
    assert error["param"] == "model"


def test_models_are_described(client, encoder):
    (card,) = client.get("/v1/models").json()["data"]
    assert card["id"] == "embedsvc-default"
    assert card["dimension"] == encoder.dimension
    assert card["runtime"] == "static"
    assert card["fingerprint"] == encoder.fingerprint
    assert card["max_tokens"] is None
    assert card["matryoshka_dimensions"] == list(encoder.folder.matryoshka_dimensions)
    assert card["prompts"] == encoder.folder.prompts
