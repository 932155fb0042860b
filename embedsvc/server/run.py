"""From settings to a running process: socket, log, uvicorn, greeting, orderly end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import signal
import socket
import ssl
import sys
import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI

from embedsvc.errors import InvalidInputError
from embedsvc.server.app import create_app
from embedsvc.server.logs import configure_logging
from embedsvc.server.protocol import HttpConfig
from embedsvc.server.sample import SAMPLE
from embedsvc.settings import Settings

_log = logging.getLogger(__name__)

_GC_ALLOCATIONS = 20_000  # thousands of requests alive at once make frequent collections dear
_IDLE_THREAD_S = 0.5  # an idle thread of a closed pool ends within milliseconds


def run_server(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; the requests in flight are answered first.

    Raises InvalidInputError when the address cannot be used, before anything heavy is loaded, and
    EmbedsvcError when the model or the collections cannot be opened.
    """
    _check_tls(settings)
    app = create_app(settings)
    app.state.startup_error = None
    listener = _listen(settings.host, settings.port)
    configure_logging(settings)
    # The error that stops the start is reported once, by whoever called; not also as a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.state.startup_error is None)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has ended
        signal.signal(name, lambda *_: None)
    try:
        _Server(app, settings).run(sockets=[listener])
    except SystemExit:
        if app.state.startup_error is not None:
            raise app.state.startup_error from None
        raise
    finally:
        listener.close()
    _leave()


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(HttpConfig(app, settings))
        self._app = app
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what is loaded now stays: no collection need look at it again
        gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
        if self.started and sockets:
            _greet(sockets[0], self._app, self._settings)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the requests in flight end; until then new ones are answered with 503, then refused."""
        self._app.state.draining = True
        end = time.monotonic() + self._settings.shutdown_grace_s
        waiting = set(self.server_state.tasks)
        while waiting and not self.force_exit and time.monotonic() < end:
            _, waiting = await asyncio.wait(waiting, timeout=0.1)
        self.config.timeout_graceful_shutdown = max(0, math.ceil(end - time.monotonic()))
        await super().shutdown(sockets)


def _check_tls(settings: Settings) -> None:
    """Raise InvalidInputError naming the file when there can be no HTTPS with tls_cert and tls_key."""
    if not settings.tls_cert or not settings.tls_key:
        return
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InvalidInputError(f"{name} {path} cannot be read: {error.strerror}", param=name) from error
    try:  # the password keeps OpenSSL from asking for one on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, "")
    except ssl.SSLError as error:
        raise InvalidInputError(
            f"tls_cert {settings.tls_cert} and tls_key {settings.tls_key} are not a certificate and its "
            f"unencrypted key in PEM: {error.reason or error}",
            param="tls_cert",
        ) from error


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


def _greet(listener: socket.socket, app: FastAPI, settings: Settings) -> None:
    """Say where the server is: to people with commands to try, in a JSON log as one line of it."""
    if settings.log_format == "json":
        _log.info("%s", _greeting(listener, app, settings)[0])
    else:
        print("\n".join(_greeting(listener, app, settings)), file=sys.stderr, flush=True)


def _greeting(listener: socket.socket, app: FastAPI, settings: Settings) -> list[str]:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}"
    options = "-s --insecure" if settings.tls_cert else "-s"
    options += ' -H "Authorization: Bearer $KEY"' if settings.keys_file else ""

    def curl(path: str, body: dict[str, Any]) -> str:
        content = json.dumps(body, ensure_ascii=False)
        return f"  curl {options} {url}{path} -H 'Content-Type: application/json' -d '{content}'"

    models = app.state.server.models
    dimension = models.default.encoder.dimension
    others = "".join(f", {model.name}" for model in models.all[1:])
    lines = [
        f"embedsvc serves {models.default.name} ({dimension} dimensions){others} on {url}",
        "Try:",
        curl("/v1/embeddings", {"input": ["Guten Morgen", "صباح الخير"]}),
        curl(
            "/v1/bitext/mine",
            {"source": ["The cat sleeps.", "It is raining."], "target": ["Es regnet.", "Die Katze schläft."]},
        ),
        f"Page: {url}/   API: {url}/docs",
    ]
    if settings.demo:
        query = {"query": "How do I vote in the election?", "top_k": 5}
        lines.insert(3, curl(f"/v1/collections/{SAMPLE}/search", query))
    return lines


def _leave() -> None:
    """End the process now if a thread still works on a request that was given up after the grace."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(_IDLE_THREAD_S)
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
