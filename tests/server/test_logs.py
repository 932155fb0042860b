from __future__ import annotations

import json
import logging
import sys

import pytest

from embedsvc.server.logs import JsonFormatter
from tests.scheduling.toy_runtime import POISON, toy_encoder
from tests.server.conftest import error_of


@pytest.mark.parametrize("given", ["a", "req-42 of me", "x" * 128])
def test_a_request_keeps_the_id_it_brings(client, given):
    for path in ("/health", "/no/such/route"):
        answer = client.get(path, headers={"x-request-id": given})
        assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [b"", b"x" * 129, "é".encode(), b"a\x7fb", b"a\tb"])
def test_another_id_is_made_where_it_is_none(client, given):
    ids = [client.get("/health", headers={"x-request-id": given}).headers["x-request-id"] for _ in range(2)]
    assert all(len(found) == 32 and found.isalnum() for found in ids)
    assert ids[0] != ids[1]


def test_refusals_carry_the_id_too(client):
    answer = client.request("POST", "/v1/embeddings", content=b" " * 300_000, headers={"x-request-id": "big"})
    error_of(answer, 413, "body_too_large")
    assert answer.headers["x-request-id"] == "big"


def test_the_log_of_an_error_carries_the_id(make_client, tmp_path, caplog, monkeypatch):
    from embedsvc.server import logs

    monkeypatch.setattr(caplog.handler, "filters", [logs._with_request_id])
    client = make_client(toy_encoder(tmp_path))
    answer = client.request(
        "POST", "/v1/embeddings", json={"input": [POISON]}, headers={"x-request-id": "the-one"}
    )
    error_of(answer, 500, "model_failed")
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.request_id for record in logged if record.name.startswith("embedsvc.server")] == [
        "the-one"
    ]


@pytest.mark.parametrize(("log_format", "level"), [("text", "DEBUG"), ("json", "INFO")])
def test_there_is_a_line_per_request(make_client, tmp_path, caplog, log_format, level):
    caplog.set_level(logging.DEBUG, "embedsvc.access")
    client = make_client(toy_encoder(tmp_path), log_format=log_format)
    client.get("/v1/collections/a%0Ab")
    (record,) = [record for record in caplog.records if record.name == "embedsvc.access"]
    assert record.levelname == level
    assert record.message.startswith("GET /v1/collections/a%0Ab 400 in ")
    assert record.fields.pop("ms") >= 0
    assert record.fields == {
        "method": "GET",
        "path": "/v1/collections/a%0Ab",
        "status": 400,
        "client": "127.0.0.1",
    }


def test_a_json_line_is_one_line_with_what_is_known():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "a\n%s", ("é",), sys.exc_info())
    record.request_id = "id"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert set(parsed) == {"time", "level", "logger", "message", "request_id", "exception"}
    assert (parsed["level"], parsed["logger"], parsed["message"]) == ("error", "name", "a\né")
    assert parsed["exception"].endswith("ValueError: two\nlines")
    assert parsed["time"].endswith("+00:00")
