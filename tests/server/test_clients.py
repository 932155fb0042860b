"""The official clients of OpenAI and Cohere, unchanged, against a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import httpx
import numpy as np
import pytest

from tests.server_process import Server
from tests.tiny_rerankers import QUERY, counted_logit, write_counting_reranker
from tests.tiny_rerankers import TEXTS as PASSAGES

TEXTS = ["a", "Guten Morgen, liebe Sorgen", "صباح الخير", "今天天气很好,我们去公园散步吧。" * 5]


@pytest.fixture(scope="module")
def openai() -> ModuleType:
    return pytest.importorskip("openai", reason="needs the openai package")


@pytest.fixture(scope="module")
def cohere() -> ModuleType:
    return pytest.importorskip("cohere", reason="needs the cohere package")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("onnx", reason="the reranker is written with it")
    folder = write_counting_reranker(tmp_path_factory.mktemp("rerank") / "counting")
    server = Server("--data-dir", str(tmp_path_factory.mktemp("data")), "--reranker", str(folder))
    yield server.url
    server.stop()


@pytest.fixture
def openai_client(openai: ModuleType, url: str) -> Iterator[openai.OpenAI]:
    sent: list[bytes] = []
    http = httpx.Client(event_hooks={"request": [lambda request: sent.append(request.content)]})
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as client:
        client.sent = sent
        yield client


@pytest.fixture
def cohere_http() -> Iterator[httpx.Client]:
    with httpx.Client() as http:
        yield http


@pytest.fixture
def cohere_client(cohere: ModuleType, url: str, cohere_http: httpx.Client) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=url, httpx_client=cohere_http)


def test_openai_vectors_are_those_of_the_encoder(openai_client, encoder):
    answer = openai_client.embeddings.create(model="embedsvc-default", input=TEXTS)
    assert b'"encoding_format":"base64"' in openai_client.sent[0]  # what it asks for by itself
    vectors = np.array([item.embedding for item in answer.data], np.float32)
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS))
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert answer.usage.total_tokens == sum(encoder.encode_with_usage(TEXTS).tokens)
    assert answer.model == "embedsvc-default"


def test_openai_options_and_numbers(openai_client, encoder):
    answer = openai_client.embeddings.create(
        model="embedsvc-default",
        input="hello there",
        dimensions=64,
        encoding_format="float",
        extra_body={"output_dtype": "int8", "prompt": "x "},
    )
    expected = encoder.encode(["hello there"], dimensions=64, output_dtype="int8", prompt="x ")
    assert answer.data[0].embedding == expected[0].tolist()


def test_openai_errors_are_its_exceptions(openai, openai_client):
    create = openai_client.embeddings.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] is empty") as refused:
        create(model="embedsvc-default", input=["a", ""])
    assert (refused.value.param, refused.value.code) == ("input", "invalid_input")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        create(model="embedsvc-default", input=[[1, 2]])


def test_openai_lists_the_models(openai_client):
    assert [model.id for model in openai_client.models.list()] == ["embedsvc-default"]


def test_cohere_types_are_those_of_the_encoder(cohere_client, encoder):
    answer = cohere_client.embed(
        model="embedsvc-default",
        texts=TEXTS,
        input_type="search_document",
        embedding_types=["float", "int8", "ubinary"],
        output_dimension=128,
    )
    for given, dtype in (
        (answer.embeddings.float_, "float32"),
        (answer.embeddings.int8, "int8"),
        (answer.embeddings.ubinary, "ubinary"),
    ):
        expected = encoder.encode(TEXTS, dimensions=128, output_dtype=dtype)
        np.testing.assert_array_equal(np.array(given, expected.dtype), expected)
    tokens = sum(encoder.encode_with_usage(TEXTS).tokens)
    assert answer.meta.billed_units.input_tokens == tokens


def test_cohere_splits_long_lists_and_names_errors(cohere, cohere_client, cohere_http, url, encoder):
    texts = [f"text {number}" for number in range(200)]
    first_version = cohere.Client(api_key="none", base_url=url, httpx_client=cohere_http)
    answer = first_version.embed(model="embedsvc-default", texts=texts, input_type="search_query")
    np.testing.assert_array_equal(np.array(answer.embeddings, np.float32), encoder.encode(texts))
    with pytest.raises(cohere.errors.BadRequestError) as refused:
        cohere_client.embed(model="embedsvc-default", texts=["a"] * 97, input_type="clustering")
    assert refused.value.body["message"].startswith("texts has 97 texts; the limit is 96")
    with pytest.raises(cohere.errors.NotFoundError):
        cohere_client.embed(model="embed-v4.0", texts=["a"], input_type="clustering")


def relevance(text: str) -> float:
    logit = counted_logit(QUERY.split(), text.split()[:14])  # what fits beside the query
    return float(1 / (1 + np.exp(-logit)))


def test_cohere_reranks_in_both_versions(cohere, cohere_client, cohere_http, url):
    expected = sorted(((relevance(text), row) for row, text in enumerate(PASSAGES)), reverse=True)
    answer = cohere_client.rerank(model="counting", query=QUERY, documents=PASSAGES, top_n=4)
    assert [result.index for result in answer.results] == [row for _, row in expected[:4]]
    scores = [result.relevance_score for result in answer.results]
    assert scores == pytest.approx([score for score, _ in expected[:4]], rel=1e-5)
    assert answer.meta.warnings == ["documents[2] has 36 tokens with the query and was cut"]
    first_version = cohere.Client(api_key="none", base_url=url, httpx_client=cohere_http)
    documents = [{"text": text, "id": f"d{row}"} for row, text in enumerate(PASSAGES)]
    answer = first_version.rerank(query=QUERY, documents=documents, return_documents=True)
    assert [result.index for result in answer.results] == [row for _, row in expected]
    assert [result.document.text for result in answer.results] == [PASSAGES[row] for _, row in expected]
    with pytest.raises(cohere.errors.NotFoundError) as missing:
        cohere_client.rerank(model="rerank-v3.5", query=QUERY, documents=PASSAGES)
    assert missing.value.body["message"] == "no reranker 'rerank-v3.5'; this server has: counting"
