"""Who calls, what they may do, and how often: API keys, checked before the body is read."""

from __future__ import annotations

import logging
import math
import re
import time
from pathlib import Path

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from embedsvc.api_keys import ApiKey, KeyFile, read_keys
from embedsvc.api_keys import Scope as KeyScope
from embedsvc.errors import EmbedsvcError
from embedsvc.server.errors import ForbiddenError, InvalidKeyError, RateLimitedError, error_response

_log = logging.getLogger(__name__)
_CHECK_S = 1.0  # how often the file is looked at
_PUBLIC = ("/", "/health", "/ready", "/openapi.json")  # probes, and pages that are the same everywhere
_PUBLIC_FOLDER = "/docs"
_COLLECTIONS = re.compile(r"/v1/collections(?:/[^/]+(/.+))?")
_JOBS = "/v1/jobs"
_COLLECTION_VERBS: dict[str, KeyScope] = {
    "": "write",  # a new collection
    "/documents/delete": "write",
    "/verify": "admin",  # reads everything
}


def scope_needed(method: str, path: str) -> KeyScope | None:
    """Return the scope that a request needs; None for what is open to everybody."""
    if method == "GET" and (path in _PUBLIC or f"{path}/".startswith(f"{_PUBLIC_FOLDER}/")):
        return None
    if path == _JOBS or path.startswith(f"{_JOBS}/"):
        return "read" if method in ("GET", "HEAD", "OPTIONS") else "write"
    if method == "DELETE" and "/documents/" not in path:
        return "admin"
    if method == "POST" and (found := _COLLECTIONS.fullmatch(path)):
        return _COLLECTION_VERBS.get(found[1] or "", "read")
    return "write" if method in ("PUT", "PATCH", "DELETE") else "read"


class Allowance:
    """A bucket of ``per_minute`` that fills steadily; what is more than it holds is owed afterwards."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at = now

    def take(self, count: int, now: float) -> float:
        """Take ``count`` and return 0, or take nothing and return the seconds until they are there."""
        self._left = min(self._per_minute, self._left + (now - self._at) * self._per_minute / 60)
        self._at = now
        missing = min(count, self._per_minute) - self._left
        if missing > 0:
            return missing * 60 / self._per_minute
        self._left -= count
        return 0.0


class Caller:
    """One API key at work: what is left of its rates."""

    def __init__(self, key: ApiKey, now: float) -> None:
        self.key = key
        self._requests = Allowance(key.requests_per_minute, now) if key.requests_per_minute else None
        self._texts = Allowance(key.texts_per_minute, now) if key.texts_per_minute else None

    def charge_request(self, now: float) -> None:
        """Count a request; raise RateLimitedError when it is one too many."""
        self._charge(self._requests, 1, f"requests_per_minute = {self.key.requests_per_minute}", now)

    def charge_texts(self, count: int, now: float) -> None:
        """Count texts; raise RateLimitedError when they are too many."""
        self._charge(self._texts, count, f"texts_per_minute = {self.key.texts_per_minute}", now)

    def _charge(self, allowance: Allowance | None, count: int, limit: str, now: float) -> None:
        wait_s = allowance.take(count, now) if allowance else 0.0
        if wait_s:
            raise RateLimitedError(
                f"the key {self.key.name!r} has used up its {limit}; try again in {math.ceil(wait_s)} s",
                retry_after=math.ceil(wait_s),
            )


class KeyRing:
    """The keys in a file, read again when it changes; a damaged file leaves those read before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked = time.monotonic()
        self._stamp = self._file_stamp()
        self._callers: dict[str, Caller] = {}
        self._keys = KeyFile()
        self._take_over(read_keys(path))

    def find(self, secret: bytes) -> Caller | None:
        """Return the caller with this key."""
        now = time.monotonic()
        if now - self._checked >= _CHECK_S:
            self._checked = now
            self._read_if_changed()
        key = self._keys.find(secret)
        return self._callers[key.name] if key else None

    def _read_if_changed(self) -> None:
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take_over(read_keys(self._path))
        except EmbedsvcError as error:
            _log.error("%s; the keys read before stay in use", error.message)

    def _take_over(self, keys: KeyFile) -> None:
        now = time.monotonic()
        old = {name: caller for name, caller in self._callers.items() if caller.key in keys.keys}
        self._callers = {key.name: old.get(key.name) or Caller(key, now) for key in keys.keys}
        self._keys = keys

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class KeyCheck:
    """ASGI layer that knows the caller: ``scope["state"]["client"]`` is the key's name, or the address.

    With keys, a request without the right one is refused; the body is not read for that.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["client"] = scope["client"][0] if scope.get("client") else "unknown"
        needed = scope_needed(scope["method"], scope["path"])
        if self._keys and needed:
            try:
                caller = _admitted(self._keys, Headers(scope=scope), needed)
            except EmbedsvcError as refusal:
                await error_response(refusal, scope["path"])(scope, receive, send)
                return
            state["caller"], state["client"] = caller, caller.key.name
        await self._app(scope, receive, send)


def charge_texts(request: Request, count: int) -> None:
    """Count the texts of a request; raise RateLimitedError when its key has no more for now."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller:
        caller.charge_texts(count, time.monotonic())


def _admitted(keys: KeyRing, headers: Headers, needed: KeyScope) -> Caller:
    secret = _presented(headers)
    if not secret:
        raise InvalidKeyError("this server needs an API key, sent as the header Authorization: Bearer KEY")
    caller = keys.find(secret)
    if caller is None:
        raise InvalidKeyError("the API key is not one of this server's; it may have been revoked")
    if not caller.key.allows(needed):
        raise ForbiddenError(
            f"the key {caller.key.name!r} has the scope {caller.key.scope}; this needs {needed}"
        )
    caller.charge_request(time.monotonic())
    return caller


def _presented(headers: Headers) -> bytes:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        secret = headers.get("x-api-key", "")
    return secret.strip().encode("latin-1")
