"""Cohere's embed routes: several types at once, its limits, its errors."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.scheduling.toy_runtime import POISON, toy_encoder

TEXTS = ["a", "Guten Morgen, liebe Sorgen", "صباح الخير"]
DOCUMENT = {"model": "embedsvc-default", "input_type": "search_document", "texts": TEXTS}


def answer_of(response) -> dict:
    assert response.status_code == 200, response.text
    return response.json()


def test_every_type_at_once(client, encoder):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = answer_of(client.post("/v2/embed", {**DOCUMENT, "embedding_types": types}))
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["texts"] == TEXTS
    assert answer["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": sum(encoder.encode_with_usage(TEXTS).tokens)},
    }
    got = answer["embeddings"]
    assert list(got) == types
    for kind, dtype in (("float", "float32"), *((kind, kind) for kind in types[1:5])):
        expected = encoder.encode(TEXTS, output_dtype=dtype)
        np.testing.assert_array_equal(np.array(got[kind], expected.dtype), expected)
    rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in got["base64"]]
    np.testing.assert_array_equal(np.array(rows), encoder.encode(TEXTS))


def test_without_types_version_2_gives_floats_by_type_and_version_1_a_list(client, encoder):
    expected = encoder.encode(TEXTS, dimensions=64)
    body = {**DOCUMENT, "output_dimension": 64}
    two = answer_of(client.post("/v2/embed", body))["embeddings"]["float"]
    one = answer_of(client.post("/v1/embed", body))
    assert one["response_type"] == "embeddings_floats"
    for rows in (two, one["embeddings"]):
        np.testing.assert_array_equal(np.array(rows, np.float32), expected)


def test_input_type_takes_the_prompt_of_its_name_or_role(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    encoder.folder.prompts["clustering"] = "c:"
    client = make_client(encoder)
    for kind, lead in (("search_query", "q:"), ("search_document", ""), ("clustering", "c:")):
        answer = answer_of(client.post("/v2/embed", {"texts": ["abc"], "input_type": kind}))
        np.testing.assert_array_equal(floats(answer), encoder.encode([lead + "abc"]))


def test_texts_are_cut_at_the_end_and_a_warning_says_so(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    body = {"texts": ["abc", "defghijklmnopqrs"], "input_type": "search_document"}
    for options, cut in (
        ({}, "defghijklmno"),
        ({"truncate": "START"}, "hijklmnopqrs"),
        ({"max_tokens": 6}, "defg"),
    ):
        answer = answer_of(client.post("/v2/embed", body | options))
        np.testing.assert_array_equal(floats(answer), encoder.encode(["abc", cut]))
        assert answer["meta"]["warnings"] == ["texts[1] has 18 tokens and was cut"]
    refused = client.post("/v2/embed", body | {"truncate": "NONE"})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("texts[1] has 16 tokens; the limit is 12")


def floats(answer) -> np.ndarray:
    return np.array(answer["embeddings"]["float"], np.float32)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"texts": ["a"] * 97}, 400, "texts has 97 texts; the limit is 96"),
        ({"texts": []}, 400, "texts is []; it must be a list of at least 1"),
        ({"texts": ["a", ""]}, 400, "texts[1] is empty"),
        ({"input_type": None}, 400, "input_type is None; expected 'search_document'"),
        ({"input_type": "image"}, 400, "input_type is 'image'; expected 'search_document'"),
        ({"images": ["data:"]}, 400, "images: this server encodes texts only"),
        ({"embedding_types": ["float", "int4"]}, 400, "embedding_types[1] is 'int4'; expected 'float'"),
        ({"model": "embed-v4.0"}, 404, "no model 'embed-v4.0'; this server has: embedsvc-default"),
        ({"textes": []}, 400, "unknown field 'textes'; did you mean 'texts'?"),
    ],
)
def test_errors_have_its_shape(client, change, status, message):
    response = client.post("/v2/embed", DOCUMENT | change)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"message"}
    assert response.json()["message"].startswith(message)


def test_version_2_asks_for_the_input_type(client):
    response = client.post("/v2/embed", {"texts": TEXTS})
    assert response.json() == {"message": "input_type is missing"}
    assert client.post("/v1/embed", {"texts": TEXTS}).status_code == 200


def test_a_failing_model_has_its_shape(make_client, tmp_path):
    response = make_client(toy_encoder(tmp_path)).post("/v1/embed", {"texts": [POISON]})
    assert response.status_code == 500
    assert response.json().keys() == {"message"}
