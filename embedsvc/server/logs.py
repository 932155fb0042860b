"""The log: lines for people or JSON, each with the id of the request it is about."""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedsvc.server.metrics import Metrics
from embedsvc.settings import Settings

_access_log = logging.getLogger("embedsvc.access")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"
_LONGEST_ID = 128
_CLIENT_GONE = 499  # as nginx names it; seen in metrics and log only


def configure_logging(settings: Settings) -> None:
    """Send the log of the whole process, uvicorn's too, to standard error."""
    as_json = settings.log_format == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_with_request_id)
    handler.setFormatter(
        JsonFormatter() if as_json else logging.Formatter(_TEXT, defaults={"request_id": "-"})
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(as_json)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; what a line's ``fields`` hold is added."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", None),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None})


class RequestLog:
    """The outermost ASGI layer: names the request, times it, and counts and logs how it ended."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, level: int) -> None:
        self._app = app
        self._metrics = metrics
        self._level = level

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        status = _CLIENT_GONE
        request_id = _given_id(scope) or new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        _request_id.set(request_id)

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            seconds = time.perf_counter() - begin
            self._metrics.observe_request(scope, status, seconds)
            self._log(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        method, path, client = scope["method"], quote(scope["path"]), scope["state"].get("client")
        ms = round(seconds * 1000, 1)
        fields = {"method": method, "path": path, "status": status, "ms": ms, "client": client}
        _access_log.log(
            self._level, "%s %s %d in %.1f ms", method, path, status, ms, extra={"fields": fields}
        )


def new_request_id() -> str:
    """Return an id for a request that brought none."""
    return uuid.uuid4().hex


def _given_id(scope: Scope) -> str | None:
    """Return the request's own id if it is 1 to 128 printable ASCII characters."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if len(given) <= _LONGEST_ID and given.isascii() and given.isprintable() and given else None


def _with_request_id(record: logging.LogRecord) -> bool:
    if request_id := _request_id.get():
        record.request_id = request_id
    return True
