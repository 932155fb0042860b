"""What holds for every request: one error shape, limits, metrics, health, the page."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest

from embedsvc.server.lanes import Lane
from tests.scheduling.toy_runtime import PANIC, POISON, ToyRuntime, toy_encoder
from tests.server.conftest import error_of

JSON = {"Content-Type": "application/json"}


def test_unknown_routes_and_wrong_methods(client):
    assert error_of(client.get("/v2/nope"), 404, "route_not_found")["type"] == "not_found_error"
    error_of(client.get("/v1/collections/"), 404, "route_not_found")
    response = client.get("/v1/embeddings")
    assert error_of(response, 405, "method_not_allowed")["message"] == "/v1/embeddings does not take GET"
    assert response.headers["allow"] == "POST"


def test_unexpected_errors_say_nothing_about_their_cause_but_are_logged(make_client, tmp_path, caplog):
    client = make_client(toy_encoder(tmp_path), request_timeout_s=5)
    for text in (POISON, PANIC):
        response = client.post("/v1/embeddings", {"input": ["a", text]})
        assert error_of(response, 500, "model_failed")["message"] == "the model failed to encode input[1]"
        assert "secret" not in response.text
    assert "secret details" in caplog.text

    async def fail(*_args, **_options):
        raise ZeroDivisionError("secret thing")

    client.app.state.server.models.default.encode = fail
    response = client.post("/v1/embeddings", {"input": "a"})
    assert error_of(response, 500, "internal_error")["message"] == (
        "an internal error; the server's log has the details"
    )
    assert "ZeroDivisionError: secret thing" in caplog.text


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused_however_it_is_sent(client, declared):
    async def chunks():
        for _ in range(300):
            yield b" " * 1000

    content = b" " * 300_000 if declared else chunks()
    response = client.request("POST", "/v1/embeddings", content=content, headers=JSON)
    error = error_of(response, 413, "body_too_large")
    assert error["message"] == "the body has more than max_body_bytes = 200000 bytes"


def test_a_body_of_exactly_the_limit_is_taken(client):
    body = b'{"input": "a"}'
    response = client.request("POST", "/v1/embeddings", content=body.ljust(200_000), headers=JSON)
    assert response.status_code == 200
    error_of(
        client.request("POST", "/v1/embeddings", content=body.ljust(200_001), headers=JSON),
        413,
        "body_too_large",
    )


def test_a_request_that_takes_too_long_is_given_up(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime), request_timeout_s=0.2)
    runtime.open.clear()
    try:
        error = error_of(client.post("/v1/embeddings", {"input": "a"}), 503, "timeout")
        assert error["message"] == "the request took longer than request_timeout_s = 0.2 s"
        error_of(client.get("/ready"), 503, "timeout")
        assert client.get("/health").status_code == 200
    finally:
        runtime.open.set()


def test_work_for_a_client_that_went_away_is_dropped(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime))
    runtime.entered.clear()
    runtime.open.clear()

    async def request(text, gone):
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/embeddings",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        sent, messages = [], iter([{"type": "http.request", "body": b'{"input": "%s"}' % text}])

        async def receive():
            if message := next(messages, None):
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await client.app(scope, receive, send)
        return sent

    async def run():
        never, gone = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(request(b"first", never))
        await asyncio.to_thread(runtime.entered.wait, 10)
        second = asyncio.create_task(request(b"second", gone))
        while not client.app.state.server.models.default.waiting_texts("interactive"):
            await asyncio.sleep(0)
        gone.set()
        assert await second == []
        assert client.app.state.server.models.default.waiting_texts("interactive") == 0
        runtime.open.set()
        assert (await first)[0]["status"] == 200

    client.run(run())
    assert {"second"} not in runtime.batches
    assert 'embedsvc_requests_total{method="POST",route="/v1/embeddings",status="499"} 1.0' in (
        client.get("/metrics").text
    )


def test_ready_runs_the_model_and_health_does_not(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime))
    runtime.batches.clear()
    assert client.get("/health").json() == {"status": "ok"}
    assert not runtime.batches
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert len(runtime.batches) == 1  # the second time the last batch was proof enough

    def broken(_batch):
        raise RuntimeError("gone")

    runtime.embed = broken
    assert client.get("/ready").status_code == 200  # the last batch went well
    error_of(client.post("/v1/embeddings", {"input": "a"}), 500, "model_failed")
    error = error_of(client.get("/ready"), 503, "unavailable")
    assert error["message"].endswith("does not encode one word: the model failed to encode input[0]")
    assert client.get("/health").status_code == 200


def test_metrics_count_requests_texts_and_tokens(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path / "toy"))
    client.post("/v1/embeddings", {"input": ["abc", "de"]})
    client.post("/v1/embeddings", {"input": []})
    client.get("/v1/collections/unknown-one")
    client.get("/some/scanner/path")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'embedsvc_requests_total{method="POST",route="/v1/embeddings",status="200"} 1.0',
        'embedsvc_requests_total{method="POST",route="/v1/embeddings",status="400"} 1.0',
        'embedsvc_requests_total{method="GET",route="/v1/collections/{name}",status="404"} 1.0',
        'embedsvc_requests_total{method="GET",route="unknown",status="404"} 1.0',
        'embedsvc_request_seconds_count{route="/v1/embeddings"} 2.0',
        'embedsvc_texts_total{lane="interactive",model="toy"} 2.0',
        'embedsvc_tokens_total{lane="interactive",model="toy"} 9.0',
        'embedsvc_padding_tokens_total{model="toy"} 1.0',
        'embedsvc_stage_seconds_count{lane="interactive",model="toy",stage="queue"} 1.0',
        'embedsvc_batch_texts_bucket{le="1.0",model="toy"} 0.0',
        'embedsvc_batch_texts_bucket{le="2.0",model="toy"} 1.0',
        'embedsvc_queue_texts{lane="bulk",model="toy"} 0.0',
    ):
        assert line in lines


def test_every_app_has_its_own_metrics(make_client, tmp_path):
    one, other = (make_client(toy_encoder(tmp_path / "toy")) for _ in range(2))
    one.post("/v1/embeddings", {"input": "abc"})
    assert 'embedsvc_texts_total{lane="interactive",model="toy"} 1.0' in one.get("/metrics").text
    assert 'embedsvc_texts_total{lane="interactive",model="toy"} 0.0' in other.get("/metrics").text


def test_the_api_description_tells_the_truth_about_errors(client):
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert "422" not in operation["responses"], (method, path)
            assert {"4XX", "5XX"} < set(operation["responses"]), (method, path)
            assert {"200", "201", "202"} & set(operation["responses"]), (method, path)
    body = described["paths"]["/v1/embeddings"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert {"type": "string"} in fields["input"]["anyOf"]
    assert fields["dimensions"]["description"]


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "connect-src 'self'" in response.headers["content-security-policy"]
    page = response.text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert page.count('dir="auto"') + page.count('dir: "auto"') >= 4
    for control in re.findall(r"<(?:input|select) id=\"(\w+)\"", page):
        assert f'<label for="{control}">' in page


def test_a_full_lane_refuses_and_begun_work_keeps_its_place():
    import threading

    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        release.wait(60)

    async def run():
        lane = Lane("mining", threads=1, limit=2)
        begun = asyncio.create_task(lane.run(hold))
        waiting = asyncio.create_task(lane.run(str, 1))
        assert await asyncio.to_thread(entered.wait, 60)
        with pytest.raises(Exception, match="2 requests for mining are running; try again later"):
            await lane.run(str, 2)
        waiting.cancel()  # never begins: its place is free at once
        begun.cancel()  # goes on in its thread: its place is taken
        await asyncio.wait([waiting, begun])
        third = asyncio.create_task(lane.run(str, 3))
        await asyncio.sleep(0)
        with pytest.raises(Exception, match="2 requests for mining"):
            await lane.run(str, 4)
        release.set()
        assert await third == "3"
        lane.close()

    asyncio.run(run())


def test_a_model_that_gives_nothing_finite_is_not_ready(make_client, tmp_path):
    runtime = ToyRuntime()
    client = make_client(toy_encoder(tmp_path, runtime))
    assert client.get("/ready").status_code == 200
    runtime.embed = lambda batch: np.full((len(batch), runtime.dimension), np.nan, np.float32)
    error_of(client.post("/v1/embeddings", {"input": "a"}), 500, "model_failed")
    error = error_of(client.get("/ready"), 503, "unavailable")
    assert error["message"].endswith("the model gave a vector that is not finite for input[0]")
