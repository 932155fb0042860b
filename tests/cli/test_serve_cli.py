"""`embedsvc serve` as a user meets it: help, wrong options, a real process on a real port."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from embedsvc.cli import main
from embedsvc.cli.serve import serve
from embedsvc.encoder import load_encoder
from embedsvc.settings import Settings
from tests.server.processes import until
from tests.server_process import Server

# A server whose model stays at the text "slow" until a file "go" is there; at its end it says which modules
# it had loaded.
SLOW = """
import os, pathlib, sys, time
from embedsvc.encoders.static_table import StaticTableRuntime
folder = pathlib.Path(os.environ["SLOW_FOLDER"])
tokenize, embed = StaticTableRuntime.tokenize, StaticTableRuntime.embed
slow_ids = []
def note(self, texts):
    ids = tokenize(self, texts)
    slow_ids.extend(row for text, row in zip(texts, ids) if text == "slow")
    return ids
def slow(self, batch):
    if any(text.ids in slow_ids for text in batch):
        (folder / "begun").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
    return embed(self, batch)
StaticTableRuntime.tokenize, StaticTableRuntime.embed = note, slow
from embedsvc.cli import main
try:
    main()
finally:
    print("MODULES", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def slow_server(folder: Path, *options: str) -> Server:
    data = ("--data-dir", str(folder / "data"))
    return Server(*data, *options, code=SLOW, variables={"SLOW_FOLDER": str(folder)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slow")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = slow_server(folder, "--demo")
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def stopped(monkeypatch, capsys) -> Callable[..., str]:
    """Give a command that must stop with status 1; return what it said, which is all on standard error."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["embedsvc", "serve", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        output, errors = capsys.readouterr()
        assert output == ""
        return errors

    return run


def test_the_options_are_those_of_the_settings():
    shown = CliRunner().invoke(serve, ["--help"]).output
    plain = re.sub(r"\s+", " ", shown)
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert field.description in plain, name
        if field.default not in (None, ()):
            assert f"[default: {str(field.default).lower()}]" in plain, name
    assert "--demo / --no-demo" in plain
    assert "--runtime [auto|static|onnx|torch]" in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port: port is 70000: it should be less than or equal to 65535"),
        (["--port", "x"], "Invalid value for '--port': 'x' is not a valid integer."),
        (["--prot", "1"], "No such option '--prot'."),
        (["--config", "/no/file"], "--config: config /no/file cannot be read: No such file or directory"),
        (["--model", "a", "--model", ""], "--model: model has an empty entry at position 1"),
        (["--max-batch-texts", "0"], "--max-batch-texts: max_batch_texts is 0: it should be greater"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, message):
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_greeting_can_be_pasted_into_a_shell(server):
    commands = [line.strip() for line in server.greeting if line.startswith("  curl")]
    assert [re.search(r"/v1/\S+", command)[0] for command in commands] == [
        "/v1/embeddings",
        "/v1/collections/sample/search",
        "/v1/bitext/mine",
    ]
    for command in commands:
        answer = subprocess.run(
            ["bash", "-c", f"{command} --fail"], capture_output=True, text=True, timeout=30
        )
        assert answer.returncode == 0, command
        assert answer.stdout.startswith(('{"object":"list"', '{"hits":[{', '{"pairs":[{'))


def test_concurrent_clients_get_exactly_the_vectors_of_the_encoder(server):
    encoder = load_encoder()
    inputs = [[f"sentence number {i} " * (i % 13 + 1), "z" * (i + 1)][: i % 2 + 1] for i in range(32)]
    ready = threading.Barrier(32)

    def post(texts: list[str]) -> Any:
        ready.wait(20)
        return httpx.post(f"{server.url}/v1/embeddings", json={"input": texts}, timeout=30).json()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(post, inputs))
    for texts, answer in zip(inputs, answers, strict=True):
        vectors = np.array([item["embedding"] for item in answer["data"]], np.float32)
        np.testing.assert_array_equal(vectors, encoder.encode(texts))


def test_a_body_over_the_limit_gets_its_answer(server):
    response = httpx.post(f"{server.url}/v1/embeddings", content=b" " * (40 * 2**20), timeout=30)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert response.headers["connection"] == "close"


def test_a_port_in_use_is_one_line_before_any_model_is_loaded(server, stopped):
    port = server.url.rsplit(":", 1)[1]
    expected = f"embedsvc: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert stopped("--port", port, "--model", "/no/such/model") == expected


def test_a_broken_model_is_one_line(stopped, tmp_path):
    assert stopped("--port", "0", "--model", str(tmp_path)) == (
        f"embedsvc: {tmp_path} is not a model folder: it has neither modules.json nor config.json\n"
    )


def test_a_data_dir_that_is_a_file_is_one_line(stopped, tmp_path):
    path = tmp_path / "file"
    path.touch()
    assert stopped("--port", "0", "--data-dir", str(path)) == (
        f"embedsvc: data_dir {path} cannot be used: File exists\n"
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--host", "203.0.113.7"], {}, "cannot listen on 203.0.113.7 port 8080: Cannot assign requested "),
        (
            [],
            {"EMBEDSVC_PORTS": "1"},
            "no option has the variable EMBEDSVC_PORTS; the nearest is EMBEDSVC_PORT",
        ),
        (
            [],
            {"EMBEDSVC_LOG_LEVEL": "loud"},
            "the variable EMBEDSVC_LOG_LEVEL is 'loud': it should be 'debug', ",
        ),
    ],
)
def test_what_stops_the_start_is_one_line(monkeypatch, stopped, arguments, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines = stopped(*arguments).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"embedsvc: {message}")


def test_sigterm_answers_what_is_in_flight_refuses_the_rest_and_exits_with_0(server, folder):
    kept = httpx.Client(base_url=server.url, timeout=30)
    assert kept.get("/ready").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, f"{server.url}/v1/embeddings", json={"input": "slow"}, timeout=60)
        until((folder / "begun").exists)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        for client in (kept, httpx):
            url = "/ready" if client is kept else f"{server.url}/ready"
            refused = client.get(url)
            assert refused.status_code == 503
            assert refused.json()["error"]["message"] == "the server is shutting down"
            assert refused.headers["connection"] == "close"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert not slow.done()
        (folder / "go").touch()
        assert slow.result(20).status_code == 200
        assert len(slow.result().json()["data"]) == 1
    kept.close()
    output, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    assert "Traceback" not in errors
    loaded = set(output.split("MODULES", 1)[1].split())
    assert not loaded & {"torch", "sentence_transformers", "transformers", "onnx", "onnxruntime", "training"}


@pytest.mark.slow
def test_a_request_longer_than_the_grace_does_not_hold_the_exit(tmp_path):
    server = slow_server(tmp_path, "--shutdown-grace-s", "1")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, f"{server.url}/v1/embeddings", json={"input": "slow"}, timeout=60)
        until((tmp_path / "begun").exists)
        assert server.stop()[0] == 0  # though the model is still at work
        assert slow.result(20).status_code == 503
        assert slow.result().json()["error"]["message"] == "the server shut down before the request was done"
    with socket.socket() as probe:  # the port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
