"""From settings to a running process: socket, log, uvicorn, greeting, orderly end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI

from embedsvc.errors import InvalidInputError
from embedsvc.server.app import create_app
from embedsvc.server.sample import SAMPLE
from embedsvc.settings import Settings

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run_server(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; the requests in flight are answered first.

    Raises InvalidInputError when the address cannot be used, before anything heavy is loaded, and
    EmbedsvcError when the model or the collections cannot be opened.
    """
    listener = _listen(settings.host, settings.port)
    logging.basicConfig(level=settings.log_level.upper(), format=_LOG_FORMAT)
    app = create_app(settings)
    app.state.startup_error = None
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # The error that stops the start is reported once, by whoever called; not also as a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.state.startup_error is None)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has ended
        signal.signal(name, lambda *_: None)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_grace_s,
        server_header=False,
        lifespan="on",
    )
    try:
        _Server(config, app, settings).run(sockets=[listener])
    except SystemExit:
        if app.state.startup_error is not None:
            raise app.state.startup_error from None
        raise
    finally:
        listener.close()
    _leave()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(_greeting(sockets[0], self._app, demo=self._settings.demo), file=sys.stderr, flush=True)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise InvalidInputError when host or port cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)  # from now on the port is ours; uvicorn sets the real backlog
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {host} port {port}: {error.strerror}", param="port"
        ) from error
    return listener


def _greeting(listener: socket.socket, app: FastAPI, *, demo: bool) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}"

    def curl(path: str, body: dict[str, Any]) -> str:
        content = json.dumps(body, ensure_ascii=False)
        return f"  curl -s {url}{path} -H 'Content-Type: application/json' -d '{content}'"

    encoder = app.state.server.encoder
    lines = [
        f"embedsvc serves {encoder.name} ({encoder.dimension} dimensions) on {url}",
        "Try:",
        curl("/v1/embeddings", {"input": ["Guten Morgen", "صباح الخير"]}),
        curl(
            "/v1/bitext/mine",
            {"source": ["The cat sleeps.", "It is raining."], "target": ["Es regnet.", "Die Katze schläft."]},
        ),
        f"Page: {url}/   API: {url}/docs",
    ]
    if demo:
        query = {"query": "How do I vote in the election?", "top_k": 5}
        lines.insert(3, curl(f"/v1/collections/{SAMPLE}/search", query))
    return "\n".join(lines)


def _leave() -> None:
    """End the process now if a thread still works on a request that was given up after the grace."""
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
