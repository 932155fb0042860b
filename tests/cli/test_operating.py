"""A server in operation, as a real process on a real socket: TLS, keys, JSON log, rude clients."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedsvc.api_keys import KeyLimits, create_key
from embedsvc.errors import InvalidInputError
from embedsvc.server.run import run_server
from embedsvc.settings import Settings
from tests.server.processes import small, until
from tests.server_process import Server

PATIENCE_S = 1.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    try:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    return cert, key


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a second for a request."""
    server = Server(
        *small(tmp_path_factory.mktemp("impatient")),
        *("--request-timeout-s", str(PATIENCE_S), "--max-body-bytes", "50000000"),
    )
    yield server
    if server.process.poll() is None:
        server.stop()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def error_in(answer: bytes) -> tuple[int, str, dict[str, str]]:
    """Return status, error code and headers of one raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(headers["content-length"]) == len(body)
    return int(first.split()[1]), json.loads(body)["error"]["code"], headers


def test_https_keys_json_log_and_request_ids_work_together(certificate, tmp_path):
    cert, key = certificate
    keys = tmp_path / "keys.json"
    secret = create_key(keys, "k", KeyLimits())
    config = tmp_path / "serve.toml"
    config.write_text(f'tls_cert = "{cert}"\ntls_key = "{key}"\nkeys_file = "{keys}"\nlog_format = "json"\n')
    server = Server("--config", str(config), *small(tmp_path))
    assert server.url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(base_url=server.url, verify=trusting) as client:
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 401
        headers = {"Authorization": f"Bearer {secret}", "x-request-id": "mine"}
        answer = client.post("/v1/embeddings", json={"input": "a"}, headers=headers)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http{server.url[5:]}/health")
    code, _, errors = server.stop()
    assert code == 0
    lines = [json.loads(line) for line in [*server.greeting, *errors.splitlines()]]
    access = [line for line in lines if line["logger"] == "embedsvc.access"]
    assert [(line["status"], line["client"]) for line in access] == [(401, "127.0.0.1"), (200, "k")]
    assert access[1]["request_id"] == "mine"
    assert {line["level"] for line in lines} <= {"info", "warning"}


def test_the_greeting_works_with_https_and_keys(certificate, tmp_path):
    cert, key = certificate
    secret = create_key(tmp_path / "keys.json", "k", KeyLimits())
    server = Server(
        *("--tls-cert", str(cert), "--tls-key", str(key), "--keys-file", str(tmp_path / "keys.json")),
        *small(tmp_path),
    )
    try:
        command = next(line for line in server.greeting if line.startswith("  curl"))
        answer = subprocess.run(
            ["bash", "-c", command], env={**os.environ, "KEY": secret}, capture_output=True, text=True
        )
        assert answer.stdout.startswith('{"object":"list"'), answer.stderr
    finally:
        server.stop()


def test_files_that_make_no_https_stop_the_start(certificate, tmp_path):
    cert, key = certificate
    (tmp_path / "locked.pem").write_bytes(
        subprocess.run(
            ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:x"],
            check=True,
            capture_output=True,
        ).stdout
    )
    for given_cert, given_key, message in (
        (tmp_path / "no.pem", key, rf"^tls_cert {tmp_path}/no.pem cannot be read: No such file"),
        (cert, tmp_path, rf"^tls_key {tmp_path} cannot be read: Is a directory"),
        (key, key, "are not a certificate and its unencrypted key in PEM"),
        (cert, tmp_path / "locked.pem", "are not a certificate and its unencrypted key in PEM"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            run_server(Settings(tls_cert=given_cert, tls_key=given_key))


def test_a_body_that_trickles_is_given_up(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        begin = time.monotonic()
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            status, code, headers = error_in(read_all(connection))
        finally:
            stop.set()
            thread.join()
    assert (status, code, headers["connection"]) == (503, "timeout", "close")
    assert time.monotonic() - begin >= PATIENCE_S


@pytest.mark.slow
@pytest.mark.parametrize("answered_before", [False, True])
def test_a_head_that_never_ends_is_given_up(tmp_path, answered_before):
    code = "import embedsvc.server.protocol as p; p._KEEP_ALIVE_S = 1; from embedsvc.cli import main; main()"
    server = Server("--data-dir", str(tmp_path), "--request-timeout-s", "1", code=code)
    try:
        with connect(server) as connection:
            answer = b""
            if answered_before:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                while not answer.endswith(b'{"status":"ok"}'):
                    answer += connection.recv(65536)
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            for letter in b"X-Slow: " + b"a" * 300:
                time.sleep(0.1)
                connection.setblocking(False)
                try:
                    if answer := connection.recv(65536):
                        break
                except BlockingIOError:
                    connection.sendall(bytes([letter]))
            else:
                pytest.fail("the head was never given up")
            connection.settimeout(60)
            assert error_in(answer)[:2] == (503, "timeout")
    finally:
        server.stop()


def test_a_connection_that_says_nothing_is_closed(impatient):
    with connect(impatient) as connection:
        assert read_all(connection) == b""


def test_a_head_without_bounds_is_refused(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: ")
        answer = b""
        for _ in range(200):
            try:
                connection.sendall(b"a" * 10_000)
            except OSError:
                break
        answer = connection.recv(65536)
    assert error_in(answer)[:2] == (431, "head_too_large")


def test_what_is_not_http_gets_the_one_shape(impatient):
    for raw in (
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with connect(impatient) as connection:
            connection.sendall(raw)
            status, code, headers = error_in(read_all(connection))
        assert (status, code, headers["connection"]) == (400, "invalid_input", "close")
        assert len(headers["x-request-id"]) == 32


@pytest.mark.slow
def test_a_client_that_does_not_read_its_answer_is_cut_off(impatient):
    body = json.dumps({"input": [f"{i} of many words" for i in range(2000)]}).encode()
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        time.sleep(2 * PATIENCE_S + 1.5)
        answer = read_all(connection)  # what the kernel held
    length = int(re.search(rb"content-length: (\d+)", answer)[1])
    assert length > 5_000_000
    assert len(answer) < length


def test_after_all_this_the_server_serves_and_ends(impatient):
    until(lambda: httpx.post(f"{impatient.url}/v1/embeddings", json={"input": "a"}).status_code == 200)
    code, _, errors = impatient.stop()
    assert code == 0
    assert "Traceback" not in errors
