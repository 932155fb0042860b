"""What uvicorn lacks: an end to heads that never end and answers nobody reads; errors in our shape."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from embedsvc.errors import EmbedsvcError, InvalidInputError
from embedsvc.server.errors import HeadTooLargeError, RequestTimeoutError, error_response
from embedsvc.server.logs import new_request_id
from embedsvc.settings import Settings

_MAX_HEAD_BYTES = 64 * 1024
_KEEP_ALIVE_S = 75  # longer than clients keep idle connections: it is they who should close first


class HttpConfig(uvicorn.Config):
    """Uvicorn's options for a server with these settings."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.shutdown_grace_s,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        self.patience_s = settings.request_timeout_s


class HttpProtocol(HttpToolsProtocol):
    """One connection. Its client has ``patience_s`` to send a head, and to read on while an answer waits."""

    def __init__(self, config: HttpConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._patience_s = config.patience_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None  # None: no head is being received
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head(self._patience_s)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._read_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(HeadTooLargeError(f"the request's head has more than {_MAX_HEAD_BYTES} bytes"))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        if self._head_timer:
            self._head_timer.cancel()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task:  # no request waits behind this one
            self._await_head(self.timeout_keep_alive + self._patience_s)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_timer:
            self._read_timer.cancel()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        self._refuse(InvalidInputError("this is not a valid HTTP/1.1 request"))

    def _await_head(self, seconds: float) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(seconds, self._head_overdue)

    def _head_overdue(self) -> None:
        if self._head_bytes is None:
            self.transport.close()
        else:
            self._refuse(RequestTimeoutError(f"the request's head took longer than {self._patience_s:g} s"))

    def _await_reader(self, unread: int) -> None:
        """Cut the connection off unless some of the answer is read in time."""

        def overdue() -> None:
            left = self.transport.get_write_buffer_size()
            if left < unread:
                self._await_reader(left)
            else:
                self.transport.abort()

        self._read_timer = self.loop.call_later(self._patience_s, overdue)

    def _refuse(self, error: EmbedsvcError) -> None:
        """Answer outside the app and close: there is no request that could be given to it."""
        response = error_response(error)
        response.headers["Connection"] = "close"
        response.headers["x-request-id"] = new_request_id()
        head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 %d \r\n%s\r\n%s" % (response.status_code, head, response.body))
        self.transport.close()
