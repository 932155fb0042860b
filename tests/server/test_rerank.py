"""The rerank routes of text-embeddings-inference and Cohere, with a reranker and without one."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from embedsvc.api_keys import KeyLimits, create_key
from embedsvc.errors import DeadlineError, NotFoundError, OverloadedError
from embedsvc.reranker import load_reranker
from embedsvc.server.reranking import open_reranker
from embedsvc.settings import Settings
from tests.scheduling.toy_runtime import ToyRuntime, toy_encoder
from tests.server.conftest import AppClient
from tests.tiny_rerankers import QUERY, TEXTS, counted_logit, write_counting_reranker, write_json

ROOM = 14  # tokens of a text beside the query
LOGITS = np.array([counted_logit(QUERY.split(), text.split()[:ROOM]) for text in TEXTS])
BEST = np.argsort(-LOGITS).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnx", reason="the reranker is written with it")
    return write_counting_reranker(tmp_path_factory.mktemp("rerank") / "counting")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return toy_encoder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def module_client(encoder, tmp_path_factory):
    with ExitStack() as stack:

        def make(**options):
            settings = Settings(data_dir=tmp_path_factory.mktemp("data"), max_batch_texts=64, **options)
            client = AppClient(settings, encoder)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="module")
def ranking(module_client, folder):
    return module_client(reranker=str(folder))


@pytest.fixture(scope="module")
def comparing(module_client):
    return module_client()


@pytest.fixture
def spoilt(make_client, encoder, folder):
    """A client of its own, whose reranker the test changes."""
    return make_client(encoder, reranker=str(folder))


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def results(response):
    assert response.status_code == 200, response.text
    return response.json()["results"]


def test_tei_scores_are_the_reranker_s(ranking):
    body = {"query": QUERY, "texts": TEXTS, "return_text": True}
    response = ranking.post("/rerank", body)
    assert response.status_code == 200, response.text
    ranks = response.json()
    assert [rank["index"] for rank in ranks] == BEST
    assert [rank["text"] for rank in ranks] == [TEXTS[row] for row in BEST]
    assert [rank["score"] for rank in ranks] == pytest.approx(sigmoid(LOGITS)[BEST], rel=1e-5)
    assert int(response.headers["x-compute-tokens"]) == sum(6 + len(text.split()) for text in TEXTS)
    raw = ranking.post("/rerank", body | {"raw_scores": True}).json()
    assert [rank["score"] for rank in raw] == pytest.approx(LOGITS[BEST], rel=1e-5)


def test_tei_cuts_on_either_side_or_refuses(ranking):
    body = {"query": QUERY, "texts": [TEXTS[2]], "raw_scores": True}
    words = TEXTS[2].split()
    for options, kept in (({}, words[:ROOM]), ({"truncation_direction": "left"}, words[-ROOM:])):
        (rank,) = ranking.post("/rerank", body | options).json()
        assert rank["score"] == pytest.approx(counted_logit(QUERY.split(), kept), rel=1e-5)
    refused = ranking.post("/rerank", body | {"truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert refused.json()["error"].startswith("texts[0] has 30 tokens; beside the query the limit is 14")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": " ", "texts": ["a"]}, "query is empty"),
        ({"query": "a", "texts": ["a", ""]}, "texts[1] is empty"),
        ({"query": "w1 " * 40, "texts": ["a"]}, "query has 40 tokens; the limit is 16"),
        ({"query": "a", "texts": ["b"] * 65}, "texts has 65 texts; max_batch_texts = 64"),
    ],
)
def test_tei_errors_keep_their_shape(ranking, body, message):
    response = ranking.post("/rerank", body)
    assert response.status_code == 422
    assert response.json()["error_type"] == "Validation"
    assert response.json()["error"].startswith(message)


def test_the_embedding_model_is_described_as_before(ranking):
    assert "embedding" in ranking.get("/info").json()["model_type"]
    assert len(ranking.get("/v1/models").json()["data"]) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_answers_best_first_with_what_was_used(ranking, version):
    response = ranking.post(f"/v{version}/rerank", {"query": QUERY, "documents": TEXTS, "model": "counting"})
    found = results(response)
    assert [result["index"] for result in found] == BEST
    assert [result["relevance_score"] for result in found] == pytest.approx(sigmoid(LOGITS)[BEST], rel=1e-5)
    assert all(result.keys() == {"index", "relevance_score"} for result in found)
    assert response.json()["meta"] == {
        "api_version": {"version": str(version)},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": sum(6 + len(text.split()) for text in TEXTS)},
        "warnings": ["documents[2] has 36 tokens with the query and was cut"],
    }
    assert (
        results(ranking.post(f"/v{version}/rerank", {"query": QUERY, "documents": TEXTS, "top_n": 2}))
        == found[:2]
    )


def test_cohere_s_first_version_reads_the_rank_fields_of_objects(ranking):
    documents = [{"title": "w1", "text": "w2"}, {"title": "w3", "note": "w4"}, "w5"]
    body = {"query": "w9", "documents": documents, "rank_fields": ["title", "text"], "return_documents": True}
    found = {result["index"]: result for result in results(ranking.post("/v1/rerank", body))}
    for row, words in enumerate((["w1", "w2"], ["w3"], ["w5"])):
        expected = sigmoid(counted_logit(["w9"], words))
        assert found[row]["relevance_score"] == pytest.approx(expected, rel=1e-5)
    assert [found[row]["document"] for row in range(3)] == [*documents[:2], {"text": "w5"}]


def test_cohere_s_second_version_cuts_documents_where_it_is_told(ranking):
    body = {"query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 2}
    response = ranking.post("/v2/rerank", body)
    expected = [sigmoid(counted_logit(QUERY.split(), text.split()[:2])) for text in TEXTS]
    for result in results(response):
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], rel=1e-5)
    assert len(response.json()["meta"]["warnings"]) == 4


@pytest.mark.parametrize(
    ("version", "change", "status", "message"),
    [
        (1, {"documents": []}, 400, "documents is empty"),
        (2, {"documents": ["a"] * 65}, 400, "documents has 65 texts; max_batch_texts = 64"),
        (2, {"documents": ["a", " "]}, 400, "documents[1] is empty"),
        (2, {"documents": [{"text": "a"}]}, 400, "documents[0] is an object, not a string"),
        (1, {"documents": ["a", 1]}, 400, "documents[1]: a string or an object of strings is expected"),
        (1, {"documents": [{"text": 1}]}, 400, "documents[0]: a string or an object of strings is expected"),
        (1, {"documents": ["a", {"note": "b"}]}, 400, "documents[1] has none of the fields text"),
        (1, {"documents": [{"text": "a", "x": "\ud800"}]}, 400, "documents[0] holds a lone surrogate"),
        (1, {"query": ""}, 400, "query is empty"),
        (2, {"query": "w1 " * 40}, 400, "query has 40 tokens; the limit is 16"),
        (2, {"top_n": 0}, 400, "top_n is 0; it must be at least 1"),
        (2, {"max_tokens_per_doc": 0}, 400, "max_tokens_per_doc is 0; it must be at least 1"),
        (2, {"model": "toy"}, 404, "no reranker 'toy'; this server has: counting"),
        (2, {"return_documents": True}, 400, "unknown field 'return_documents'"),
    ],
)
def test_cohere_errors_have_its_shape(ranking, version, change, status, message):
    content = {"query": "a", "documents": ["b"]} | change
    sent = {"content": json.dumps(content), "headers": {"Content-Type": "application/json"}}
    response = ranking.request("POST", f"/v{version}/rerank", **sent)  # httpx refuses surrogates
    assert response.status_code == status, response.text
    assert response.json().keys() == {"message"}
    assert response.json()["message"].startswith(message)


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_reranker_cohere_gets_cosines_from_0_to_1(comparing, encoder, version):
    texts = ["zz", "abc", "y" * 30]
    cosines = encoder.encode(texts, truncate="end") @ encoder.encode(["abc"], prompt_name="query")[0]
    response = comparing.post(
        f"/v{version}/rerank", {"query": "abc", "documents": texts, "model": encoder.name}
    )
    found = results(response)
    assert [result["index"] for result in found] == np.argsort(-cosines).tolist()
    for result in found:
        assert result["relevance_score"] == pytest.approx((1 + cosines[result["index"]]) / 2, rel=1e-5)
    assert response.json()["meta"]["warnings"] == ["documents[2] has 32 tokens and was cut"]
    missing = comparing.post(f"/v{version}/rerank", {"query": "a", "documents": ["b"], "model": "counting"})
    assert missing.status_code == 404


def test_without_a_reranker_max_tokens_per_doc_counts_tokens_of_the_text(comparing, encoder):
    body = {"query": "a", "documents": ["bcdef"], "max_tokens_per_doc": 2}
    expected = encoder.encode(["bc"]) @ encoder.encode(["a"], prompt_name="query")[0]
    (result,) = results(comparing.post("/v2/rerank", body))
    assert result["relevance_score"] == pytest.approx((1 + expected[0]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("path", "field", "status"), [("/rerank", "texts", 424), ("/v1/rerank", "documents", 500)]
)
def test_a_text_that_the_reranker_fails_on_is_named_as_in_the_request(spoilt, path, field, status):
    runtime = spoilt.app.state.server.reranker.runtime
    runtime.logits = lambda batch: np.where((batch.ids == 20).any(axis=1), np.nan, 1.0)[:, None]
    response = spoilt.post(path, {"query": "w1", field: ["w2 w3", "w16"]})
    assert response.status_code == status
    assert f"not finite for {field}[1]" in response.text


def test_the_texts_are_charged_to_the_key(make_client, encoder, folder, tmp_path):
    secret = create_key(tmp_path / "keys.json", "k", KeyLimits(texts_per_minute=3))
    client = make_client(encoder, reranker=str(folder), keys_file=tmp_path / "keys.json")
    options = {
        "json": {"query": "a", "documents": ["b"] * 3},
        "headers": {"Authorization": f"Bearer {secret}"},
    }
    assert client.request("POST", "/v2/rerank", **options).status_code == 200
    refused = client.request("POST", "/v2/rerank", **options)
    assert (refused.status_code, refused.json().keys()) == (429, {"message"})
    assert client.post("/v2/rerank", options["json"]).status_code == 401


@pytest.mark.parametrize("reranks", [True, False])
def test_a_full_queue_of_the_embedding_model_stops_only_who_needs_it(make_client, tmp_path, folder, reranks):
    runtime = ToyRuntime()
    client = make_client(
        toy_encoder(tmp_path / "toy", runtime),
        reranker=str(folder) if reranks else None,
        max_queue_texts=1,
        max_batch_texts=1,
    )
    runtime.entered.clear()
    runtime.open.clear()

    async def run():
        post = client.http.post
        first = asyncio.create_task(post("/embed", json={"inputs": "a"}))
        await asyncio.to_thread(runtime.entered.wait, 60)
        second = asyncio.create_task(post("/embed", json={"inputs": "b"}))
        while client.app.state.server.models.default.waiting_texts("interactive") < 1:
            await asyncio.sleep(0)
        paths = ("/rerank", "/v1/rerank", "/v2/rerank")
        unread = [await post(path, content=b"{") for path in paths]
        runtime.open.set()
        await asyncio.gather(first, second)
        return [answer.status_code for answer in unread]

    assert client.run(run()) == ([422, 400, 400] if reranks else [429] * 3)


def test_what_the_reranker_does_is_counted(spoilt):
    spoilt.post("/rerank", {"query": QUERY, "texts": TEXTS})
    lines = spoilt.get("/metrics").text.splitlines()
    labels = 'lane="interactive",model="counting"'
    assert f"embedsvc_texts_total{{{labels}}} 6.0" in lines
    assert any(
        line.startswith(f'embedsvc_stage_seconds_count{{{labels},stage="inference"}} 1') for line in lines
    )


def test_others_are_answered_while_the_reranker_works_and_too_many_are_refused(spoilt):
    reranking = spoilt.app.state.server.reranking
    entered, go_on, logits = threading.Event(), threading.Event(), reranking.reranker.runtime.logits

    def held(batch):
        entered.set()
        assert go_on.wait(10)
        return logits(batch)

    reranking.reranker.runtime.logits = held

    async def ask():
        waiting = [asyncio.create_task(reranking.score("a", ["b"])) for _ in range(32)]
        await asyncio.to_thread(entered.wait, 60)
        health = await spoilt.http.get("/health")
        with pytest.raises(OverloadedError, match="32 requests for the reranker are running"):
            await reranking.score("a", ["b"])
        refused = await spoilt.http.post("/v2/rerank", json={"query": "a", "documents": ["b"]})
        go_on.set()
        await asyncio.gather(*waiting)
        return health, refused

    health, refused = spoilt.run(ask())
    assert health.status_code == 200
    assert (refused.status_code, refused.json().keys()) == (429, {"message"})


def test_work_that_nobody_waits_for_stops_after_the_batch_it_is_at(spoilt):
    reranking = spoilt.app.state.server.reranking
    runtime = reranking.reranker.runtime
    logits, batches, entered = runtime.logits, [], threading.Event()
    runtime.batch_tokens = 1  # a batch for each pair

    def slow(batch):
        batches.append(batch)
        entered.set()
        time.sleep(0.05)
        return logits(batch)

    runtime.logits = slow

    async def give_up():
        task = asyncio.create_task(reranking.score("a", ["b"] * 50))
        await asyncio.to_thread(entered.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = len(batches)
        await reranking.score("a", ["b"])  # waits for the thread
        return len(batches) - before

    assert spoilt.run(give_up()) <= 3


def test_scores_that_nobody_waits_for_are_no_scores(folder):
    with pytest.raises(DeadlineError, match="nobody waits"):
        load_reranker(folder).score_with_usage("a", ["b"], given_up=lambda: True)


def test_a_wrong_reranker_stops_the_start_with_its_reason(make_client, encoder, tmp_path):
    with pytest.raises(NotFoundError, match="no model folder at"):
        make_client(encoder, reranker=str(tmp_path / "nothing"))


def test_precision_holds_for_the_reranker_where_it_has_the_file(folder, tmp_path, caplog):
    assert open_reranker(Settings(precision="float32")) is None
    with caplog.at_level(logging.WARNING):
        opened = open_reranker(Settings(reranker=str(folder), precision="int8"))
    assert opened.runtime.name == "onnx"
    assert "the reranker counting has no int8 ONNX file: it runs in float32" in caplog.text
    both = write_counting_reranker(tmp_path / "both")
    write_counting_reranker(both, file="onnx/model_int8.onnx", output="scores")
    write_json(both / "tokenizer_config.json", {"model_max_length": 20})
    assert open_reranker(Settings(reranker=str(both), precision="int8")).runtime._output == "scores"
