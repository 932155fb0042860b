"""The script behind HEALTHCHECK, run against servers that are ready, not ready and not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/healthcheck.py"


@contextmanager
def server(status: int) -> Iterator[int]:
    """A server that answers /ready with a status and all else with 404; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def check(port: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMBEDSVC_PORT": str(port)}
    return subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_exit_status_says_whether_the_server_is_ready(status: int, expected: int) -> None:
    with server(status) as port:
        answer = check(port)
    assert answer.returncode == expected
    assert str(status) in answer.stdout


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    with server(200) as port:
        pass
    answer = check(port)
    assert answer.returncode == 1
    assert f"127.0.0.1:{port}/ready" in answer.stdout
