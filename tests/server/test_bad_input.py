"""What clients send and do wrong, against a real server: it explains, and others are answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from tests.server.conftest import error_of
from tests.server.processes import TestedServer, obedient, read_to_end, small, until

BODY = b'{"input":"a"}'
PATIENCE_S = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestedServer]:
    folder = tmp_path_factory.mktemp("server")
    server = TestedServer("--data-dir", str(folder / "data"), variables=obedient(folder))
    yield server
    status, _, log = server.stop()
    assert status == 0
    assert "internal" not in log


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestedServer]:
    folder = tmp_path_factory.mktemp("impatient")
    options = ["--request-timeout-s", str(PATIENCE_S), "--batch-timeout-s", str(PATIENCE_S)]
    server = TestedServer(*small(folder), *options, variables=obedient(folder))
    yield server
    assert server.stop()[0] == 0


@pytest.fixture(autouse=True)
def _the_server_is_well_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    name = "impatient" if "impatient" in request.fixturenames else "server"
    server: TestedServer = request.getfixturevalue(name)
    until(lambda: server.embed("one").status_code == 200)  # one is impatient, and the machine may be busy
    assert server.get("/ready").status_code == 200
    assert server.metric('embedsvc_queue_texts{lane="bulk",model="embedsvc-default"}') == 0


def head(*lines: bytes, path: bytes = b"/v1/embeddings") -> bytes:
    start = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json", *lines]
    return b"\r\n".join(start) + b"\r\n\r\n"


def status_and_error(answer: bytes) -> tuple[int, dict[str, Any]]:
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)["error"]


def listed(*items: object) -> bytes:
    return json.dumps({"input": items}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (listed(), "input: the list is empty"),
        (b'{"input": ""}', "input[0] is empty"),
        (listed("a", " \n\u00a0"), "input[1] is empty"),
        (rb'{"input": ["a", "x\ud800"]}', "input[1] holds a lone surrogate at character 1; it is not valid"),
        (rb'{"input": "a", "prompt": "\udfff"}', "prompt holds a lone surrogate at character 0"),
        (rb'{"in\ud800": 1}', r"unknown field 'in\ud800'"),
        (listed(1, 2), "input: token ids are not taken, because they belong to one tokenizer; send texts"),
        (listed([1, 2], [3]), "input: token ids are not taken"),
        (listed(["a"]), "input[0] is a list, not a string"),
        (listed([]), "input[0] is a list, not a string"),
        (listed("a", None), "input[1] is null, not a string"),
        (b'{"input": {"a": 1}}', "input: a string or a list of strings is expected"),
        (listed(*["a"] * 10_000), "input has 10000 texts; max_batch_texts = 2048"),
        (b'{"input": "a", "dimension": 3}', "unknown field 'dimension'; did you mean 'dimensions'?"),
        (b'{"input": "a", "dimensions": 1e400}', "dimensions is a number, not a whole number"),
        (b'{"input": "a", "dimensions": -1}', "dimensions = -1; model 'embedsvc-default' has 1 to 384"),
        (
            b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "the body is not valid JSON in UTF-8, or it",
        ),
        (b'{"input": "\xff\xfe"}', "the body is not valid JSON in UTF-8"),
        (b'{"input": "a', "the body is not valid JSON"),
        (b'["a"]', "the body is a list, not an object"),
        (b"", "the body is empty; a JSON object is expected"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_wrong_bodies_are_explained(server, body, message):
    error = error_of(server.post(body), 400, "invalid_input")
    assert error["message"].startswith(message)


@pytest.mark.parametrize("digits", [400, 5000])
def test_enormous_numbers_are_refused(server, digits):
    error_of(server.post(b'{"input": "a", "dimensions": 1%s}' % (b"0" * digits)), 400, "invalid_input")


def test_what_is_long_is_quoted_in_part(server):
    for name in ("model", "prompt_name", "x" * 1_000_000):
        response = server.post({"input": "a", name: "y" * 1_000_000})
        assert response.status_code in (400, 404)
        assert len(response.content) < 2_000
    error = error_of(server.post({"input": "a", "prompt": "y" * 1_000_000}), 400, "invalid_input")
    assert error["message"] == "prompt has 1000000 characters; the limit is 8192"


@pytest.mark.parametrize(
    ("path", "field", "item"),
    [
        ("/v1/embeddings", b'"input": %s', b"{}"),
        ("/embed", b'"inputs": [%s]', b'"x"'),
        ("/decode", b'"ids": [%s]', b'"x"'),
        ("/rerank", b'"query": "a", "texts": %s', b"{}"),
        ("/similarity", b'"inputs": {"source_sentence": "a", "sentences": %s}', b"{}"),
        ("/v2/embed", b'"model": "m", "texts": %s', b"{}"),
        ("/v1/rerank", b'"query": "a", "documents": %s', b"1"),
        ("/v2/rerank", b'"query": "a", "documents": %s', b"{}"),
        ("/v2/embed", b'"model": "m", "embedding_types": %s', b'"x"'),
        ("/v1/bitext/mine", b'"source": %s', b"{}"),
        ("/v1/bitext/score", b'"target_pool": %s', b"{}"),
    ],
)
def test_many_wrong_items_cost_no_more_than_one(server, path, field, item):
    before = most_memory(server)
    body = b"{%s}" % (field % (b"[%s]" % b",".join([item] * 300_000)))
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=60)
    assert answer.status_code in (400, 422)
    assert most_memory(server) - before < 100_000_000  # an error for each takes twice that and more


def test_texts_of_a_megabyte_and_nul_are_encoded(server):
    texts = ["word " * 200_000, "a\0b"]
    response = server.post({"input": texts})
    vectors = np.array([item["embedding"] for item in response.json()["data"]], np.float32)
    np.testing.assert_array_equal(vectors, load_encoder().encode(texts))
    assert response.json()["usage"]["prompt_tokens"] > 200_000


def test_others_are_answered_while_a_long_text_is_encoded(server):
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        long = pool.submit(server.embed, "word " * 400_000)
        waits = []
        while not long.done():
            begin = time.monotonic()
            assert server.embed("one").status_code == 200
            waits.append(time.monotonic() - begin)
        assert long.result().status_code == 200
    assert len(waits) > 3
    assert sorted(waits)[len(waits) // 2] < (time.monotonic() - start) / 4


@pytest.mark.parametrize(
    "request_",
    [
        head(b"Content-Length: 5") + BODY,
        head(b"Content-Length: -5") + BODY,
        head(b"Content-Length: 13", b"Content-Length: 5") + BODY,
        head(b"Content-Length: 13", b"Transfer-Encoding: chunked") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: xchunked") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: chunked") + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
        head(b"X: a\0b", b"Content-Length: 13") + BODY,
        b"\x16\x03\x01\x00\x00\x01",
    ],
    ids=["short", "negative", "two lengths", "both headers", "coding", "chunk size", "NUL in head", "TLS"],
)
def test_what_is_no_http_is_refused_and_cut_off(server, request_):
    status, error = status_and_error(server.talk(request_))
    assert (status, error["code"]) == (400, "invalid_input")


def test_a_body_in_chunks_is_taken(server):
    answer = server.talk(
        head(b"Transfer-Encoding: chunked", b"Connection: close") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_hundred_pipelined_requests_are_answered_in_order(server):
    bodies = [json.dumps({"input": ["a"] * (i % 3 + 1)}).encode() for i in range(100)]
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    requests = [head(b"Content-Length: %d" % len(body)) + body for body in bodies]
    answers = server.talk(b"".join([*requests, last])).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(answers) == 101
    assert [answer.count(b'"embedding":') for answer in answers] == [*(i % 3 + 1 for i in range(100)), 0]


def test_heads_that_are_too_long_and_methods_that_are_not_taken(server):
    for request in (b"GET /" + b"a" * 200_000, b"GET /health HTTP/1.1\r\nX: " + b"a" * 200_000):
        assert server.talk(request).startswith(b"HTTP/1.1 431")
    for method in ("HEAD", "OPTIONS", "DELETE"):
        assert httpx.request(method, f"{server.url}/v1/embeddings").status_code == 405


def test_a_client_that_goes_away_or_closes_its_half_is_given_up(server):
    gone = 'embedsvc_requests_total{method="POST",route="/v1/embeddings",status="499"}'
    before = server.metric(gone)
    body = listed(*["slow"] * 200)
    for leave in ("close", "half"):
        with server.connect() as connection:
            connection.sendall(head(b"Content-Length: %d" % len(body)) + body)
            if leave == "half":
                connection.shutdown(1)
                assert read_to_end(connection) == b""
    until(lambda: server.metric(gone) == before + 2)


def test_five_hundred_idle_connections_are_no_burden(server):
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(server.connect())
        assert server.embed("one").status_code == 200


def test_slow_heads_and_bodies_are_given_up(impatient):
    with ThreadPoolExecutor(2) as pool:
        slow_head = pool.submit(impatient.talk, b"POST /v1/emb")
        slow_body = pool.submit(impatient.talk, head(b"Content-Length: 500") + BODY)
        until(lambda: impatient.embed("one").status_code == 200)
        status, error = status_and_error(slow_head.result())
        assert (status, error["message"]) == (503, "the request's head took longer than 1 s")
        status, error = status_and_error(slow_body.result())
        assert (status, error["message"]) == (503, "the request took longer than request_timeout_s = 1 s")


def test_a_client_that_does_not_read_is_cut_off_and_memory_stays_bounded(impatient):
    body = listed(*["a"] * 500)  # an answer of 2.7 MB
    before = most_memory(impatient)
    with impatient.connect() as connection:
        connection.sendall((head(b"Content-Length: %d" % len(body)) + body) * 50)
        until(lambda: impatient.embed("one").status_code == 200)
        time.sleep(2.5 * PATIENCE_S)
        answered = read_to_end(connection).count(b"HTTP/1.1 200")
    assert answered < 10
    assert most_memory(impatient) - before < 50_000_000


def test_a_text_on_which_the_model_hangs_costs_its_own_request_only(impatient):
    error = error_of(impatient.embed("hang"), 503, "timeout")
    assert error["message"] == "the request took longer than request_timeout_s = 1 s"
    # A new process may take longer to start than this server lets a request wait.
    until(lambda: impatient.embed("one").status_code == 200)


def most_memory(server: TestedServer) -> int:
    """Return the most bytes that the process has had in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
