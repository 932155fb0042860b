"""NDJSON in, NDJSON out: in order, with bounded memory, against a real server where sockets matter."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.server.requests.lines import Limits, Window, windows
from tests.scheduling.toy_runtime import POISON, ToyRuntime, toy_encoder
from tests.server.conftest import AppClient, error_of
from tests.server.processes import small
from tests.server_process import Server

PATH = "/v1/embeddings/stream"


def stream(client: AppClient, *lines: object, raw: bytes | None = None, **options: object) -> list[dict]:
    content = raw if raw is not None else b"\n".join(json.dumps(line).encode() for line in lines)
    response = client.request("POST", PATH, content=content, params=options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_lines_are_answered_in_order_with_their_ids(client, encoder):
    texts = [f"text {number} " * (number % 7 + 1) for number in range(200)]  # several windows of 64
    answers = stream(client, *[{"id": [n], "text": text} if n % 2 else text for n, text in enumerate(texts)])
    assert [answer["index"] for answer in answers] == list(range(200))
    assert [answer.get("id") for answer in answers] == [[n] if n % 2 else None for n in range(200)]
    usage = encoder.encode_with_usage(texts)
    np.testing.assert_array_equal(np.array([a["embedding"] for a in answers], np.float32), usage.vectors)
    assert [answer["tokens"] for answer in answers] == usage.tokens


def test_options_are_those_of_a_request(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    options = {"dimensions": 2, "normalize": "false", "input_type": "query", "truncate": "end"}
    answers = stream(client, "abc", "d" * 20, encoding_format="base64", output_dtype="float16", **options)
    expected = encoder.encode(
        ["abc", "d" * 20],
        dimensions=2,
        normalize=False,
        input_type="query",
        truncate="end",
        output_dtype="float16",
    )
    rows = [np.frombuffer(base64.b64decode(answer["embedding"]), "<f2") for answer in answers]
    np.testing.assert_array_equal(np.array(rows), expected)
    assert [answer.get("truncated") for answer in answers] == [None, True]


def test_wrong_options_are_refused_before_anything_is_read(client):
    for options, param in (
        ({"dimensions": "x"}, "dimensions"),
        ({"dimensions": 9999}, "dimensions"),
        ({"prompt_name": "x"}, "prompt_name"),
    ):
        response = client.request("POST", PATH, content=b'"a"', params=options)
        assert error_of(response, 400, "invalid_input")["param"] == param
    response = client.request("POST", f"{PATH}?truncate=end&truncate=start", content=b'"a"')
    assert "given twice" in error_of(response, 400, "invalid_input")["message"]
    assert "unknown field" in error_of(client.request("POST", f"{PATH}?x=1"), 400, "invalid_input")["message"]
    error_of(client.request("POST", f"{PATH}?model=x"), 404, "model_not_found")


@pytest.mark.parametrize(
    ("raw", "answered", "message"),
    [
        (b'"a"\n\n  \r\n"b"\n', 2, None),
        (b"", 0, None),
        (b'"a"\n{"text"', 1, "line 2 is not valid JSON"),
        (b'"a"\n"b"\n\n{"text": "c", "txt": 1}\n"d"', 2, "line 4 has the fields text, txt;"),
        (b'"a"\n["b"]', 1, "line 2 must be a text or"),
        (b'"a"\n{"id": 3}', 1, "line 2 has the fields id;"),
        (b'"a"\n" "', 1, "line 2: text[0] is empty"),
        (b'"a"\n\n"' + b"z" * 200_001, 1, "line 3 has more than max_body_bytes = 200000 bytes"),
        (b'"a"\n"\xff"', 1, "line 2 is not valid JSON"),
    ],
)
def test_a_wrong_line_is_named_after_what_came_before_it(client, raw, answered, message):
    answers = stream(client, raw=raw)
    assert [answer["index"] for answer in answers[:answered]] == list(range(answered))
    if message is None:
        assert len(answers) == answered
    else:
        (last,) = answers[answered:]
        assert last["error"]["message"].startswith(message)


def test_a_text_that_the_model_refuses_is_named_by_its_line(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path))
    *_, answer = stream(client, raw=b'"a"\n\n"' + b"b" * 13 + b'"')
    assert answer["error"]["message"].startswith("line 3 has 13 tokens; the limit is 12")
    *_, answer = stream(client, "a", "b", POISON)
    assert answer["error"]["code"] == "model_failed"
    assert "line 3" in answer["error"]["message"]


def test_a_full_queue_makes_the_stream_wait(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime), max_queue_texts=2, max_batch_texts=2)
    runtime.entered.clear()
    runtime.open.clear()

    async def run():
        first = asyncio.create_task(client.http.post("/v1/embeddings", json={"input": "a"}))
        await asyncio.to_thread(runtime.entered.wait, 60)
        second = asyncio.create_task(client.http.post("/v1/embeddings", json={"input": ["b", "c"]}))
        while client.app.state.server.models.default.waiting_texts("interactive") < 2:
            await asyncio.sleep(0)
        streamed = asyncio.create_task(client.http.post(PATH, content=b'"d"\n"e"\n"f"'))
        await asyncio.sleep(0.1)
        runtime.open.set()
        return [await task for task in (first, second, streamed)]

    responses = client.run(run())
    assert [response.status_code for response in responses] == [200] * 3
    assert len(responses[2].text.splitlines()) == 3


def test_windows_hold_a_bounded_number_of_texts_and_characters():
    async def collect(chunks: list[bytes], limits: Limits) -> list[Window]:
        async def source() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        return [window async for window in windows(source(), limits, lambda: True)]

    body = b"".join(b'"%d"\n' % number for number in range(10))
    pieces = [body[at : at + 3] for at in range(0, len(body), 3)]
    found = asyncio.run(collect(pieces, Limits(line_bytes=10, window_texts=4)))
    assert [window.texts for window in found] == [list("0123"), list("4567"), list("89")]
    assert [window.first for window in found] == [0, 4, 8]
    assert found[1].lines == [5, 6, 7, 8]
    pieces = [b'"a"\n"b"\n"', b'c"\n', b"", b'"d"']  # an empty chunk: more may be long in coming
    found = asyncio.run(collect(pieces, Limits(line_bytes=10, window_texts=4)))
    assert [window.texts for window in found] == [list("abc"), ["d"]]
    long = b'"%s"\n' % (b"x" * 600_000)
    found = asyncio.run(collect([long] * 5, Limits(line_bytes=1_000_000, window_texts=4)))
    assert [len(window.texts) for window in found] == [2, 2, 1]
    with pytest.raises(InvalidInputError, match="line 1 has more than"):
        asyncio.run(collect([b"x" * 6, b"x" * 6], Limits(line_bytes=10, window_texts=4)))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Server(*small(tmp_path_factory.mktemp("small")), "--request-timeout-s", "3")
    yield server.url
    server.stop()


def connect(url: str) -> socket.socket:
    """Send the head of a stream request; chunks follow."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    head = f"POST {PATH}?encoding_format=base64 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_answers_come_while_the_body_is_still_sent(url):
    with connect(url) as connection:
        connection.sendall(chunk(b'"text"\n' * 600))
        received = b""
        while received.count(b'"index"') < 512:
            received += connection.recv(65536)
        connection.sendall(chunk(b'"more"') + b"0\r\n\r\n")
        while b'"index":600' not in received:
            received += connection.recv(65536)


def test_a_client_may_wait_for_each_answer(url):
    with connect(url) as connection:
        for number in range(3):
            connection.sendall(chunk(b'"text"\n'))
            received = b""
            while b"\n" not in received or b'"index":%d,' % number not in received:
                received += connection.recv(65536)
        connection.sendall(b"0\r\n\r\n")
        while b"0\r\n\r\n" not in received:
            received += connection.recv(65536)


def test_a_client_that_does_not_read_is_not_read_from(url):
    """Memory is bounded: unread answers stop the server from reading, and then it gives up."""
    with connect(url) as connection:
        connection.settimeout(1.0)
        lines = chunk(b'"%s"\n' % (b"text " * 20) * 10_000)

        def send_too_much() -> None:
            for _ in range(100):  # 100 MB of texts; sockets and two windows hold a tenth of it
                connection.sendall(lines)

        with pytest.raises((TimeoutError, ConnectionError)):
            send_too_much()


def test_a_body_that_stops_coming_is_given_up(url):
    with connect(url) as connection:
        connection.sendall(chunk(b'"text"\n"te'))
        received = b""
        while part := connection.recv(65536):
            received += part
            if b"error" in received:
                break
        assert b"nothing came for request_timeout_s = 3 s" in received


class Connection:
    """The two ends of an ASGI call, by hand: what is received, and what has been sent."""

    def __init__(self, client: AppClient) -> None:
        self._app = client.app
        self.received: asyncio.Queue[dict] = asyncio.Queue()
        self.sent: asyncio.Queue[dict] = asyncio.Queue()
        self.readable = asyncio.Event()  # cleared: the client does not read
        self.readable.set()

    async def _send(self, message: dict) -> None:
        await self.readable.wait()
        await self.sent.put(message)

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "headers": [],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("app", 80),
            "client": ("here", 1),
        }
        await self._app(scope, self.received.get, self._send)


def test_no_more_than_two_windows_are_read_ahead(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path), max_batch_texts=4)

    async def run() -> int:
        connection = Connection(client)
        for _ in range(50):  # one window each
            await connection.received.put({"type": "http.request", "body": b'"a"\n' * 4, "more_body": True})
        task = asyncio.create_task(connection.run())
        await connection.sent.get()  # the head
        connection.readable.clear()
        while connection.received.qsize() > 48:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # time to read too much
        left = connection.received.qsize()
        task.cancel()
        await asyncio.wait([task])
        return 50 - left

    assert 2 <= client.run(run()) <= 3


def test_a_client_that_goes_away_stops_the_work(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime))
    runtime.open.clear()
    runtime.entered.clear()

    async def run() -> bool:
        connection = Connection(client)
        await connection.received.put({"type": "http.request", "body": b'"a"\n"b"', "more_body": False})
        task = asyncio.create_task(connection.run())
        await asyncio.to_thread(runtime.entered.wait, 60)
        await connection.received.put({"type": "http.disconnect"})
        done, _ = await asyncio.wait([task], timeout=30)
        return bool(done)

    ended = client.run(run())
    runtime.open.set()
    assert ended
