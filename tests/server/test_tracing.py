from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from embedsvc.errors import MissingExtraError
from embedsvc.server.app import create_app
from embedsvc.server.tracing import trace_requests, tracer_provider
from embedsvc.settings import Settings
from tests.scheduling.toy_runtime import POISON, toy_encoder
from tests.server.conftest import AppClient


def test_a_span_per_request_is_named_by_its_route(make_client, tmp_path):
    pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="needs the [otel] extra")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = tracer_provider(exporter)
    client = make_client(toy_encoder(tmp_path))
    trace_requests(client.app, provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "x-request-id": "mine"}
    client.request("POST", "/v1/embeddings", json={"input": "a"}, headers=headers)
    client.get("/v1/collections/nothing")
    client.post("/v1/embeddings", {"input": [POISON]})
    for path in ("/health", "/ready", "/metrics"):
        client.get(path)
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "POST /v1/embeddings",
        "GET /v1/collections/{name}",
        "POST /v1/embeddings",
    ]
    assert [span.attributes["http.status_code"] for span in spans] == [200, 404, 500]
    assert f"{spans[0].context.trace_id:032x}" == parent.split("-")[1]
    assert list(spans[0].attributes["http.response.header.x_request_id"]) == ["mine"]
    assert spans[0].resource.attributes["service.name"] == "embedsvc"


def test_spans_reach_the_collector_before_the_server_ends(tmp_path):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the [otel] extra")
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/"
        client = AppClient(
            Settings(data_dir=tmp_path / "data", otlp_endpoint=endpoint), toy_encoder(tmp_path)
        )
        client.post("/v1/embeddings", {"input": "a"})
        client.close()
        collector.shutdown()
        thread.join()
    assert [path for path, _ in received] == ["/v1/traces"]


def test_without_the_extra_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=r"^otlp_endpoint needs the \[otel\] extra"):
        create_app(Settings(otlp_endpoint="http://127.0.0.1:4318"))
