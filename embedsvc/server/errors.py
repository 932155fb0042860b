"""Every error is answered in plain words, in the shape of the service whose route it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from embedsvc.errors import EmbedsvcError, InvalidInputError, NotFoundError, OverloadedError, UnavailableError
from embedsvc.server.dialects import Problem, dialect_of

_log = logging.getLogger(__name__)
_SHOWN_CHARACTERS = 60
_MESSAGE_CHARACTERS = 1000  # a message may quote what the client sent
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}


class ModelNotFoundError(NotFoundError):
    """The request names a model that this server does not serve."""

    code = "model_not_found"


class BodyTooLargeError(InvalidInputError):
    """The request has more bytes or items than the server takes."""

    status = 413
    code = "body_too_large"


class EmptyBatchError(InvalidInputError):
    """The request has a list of texts with nothing in it."""

    code = "empty_batch"


class WrongModelError(EmbedsvcError):
    """The request needs another kind of model than the one that is served."""

    status = 424
    code = "wrong_model"


class HeadTooLargeError(InvalidInputError):
    """The request's line and headers have more bytes than the server takes."""

    status = 431
    code = "head_too_large"


class RequestTimeoutError(UnavailableError):
    """The request took longer than the server allows."""

    code = "timeout"


class InvalidKeyError(EmbedsvcError):
    """The request has no API key, or one that the server does not know."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(EmbedsvcError):
    """The API key's scope does not include what the request does."""

    status = 403
    code = "forbidden"


class RateLimitedError(OverloadedError):
    """The API key has used up what it may ask for in a minute."""

    code = "rate_limited"


def error_response(error: EmbedsvcError, path: str = "") -> Response:
    """Return the answer of a path to an error raised on purpose."""
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, InvalidKeyError):
        headers["WWW-Authenticate"] = "Bearer"
    return _response(path, Problem(error.status, error.message, error.code, error.param), headers)


def internal_error_response(path: str = "") -> Response:
    """Return the answer of a path to an unexpected error: nothing about its cause, which is in the log."""
    message = "an internal error; the server's log has the details"
    return _response(path, Problem(500, message, "internal_error"))


def install_error_handlers(app: FastAPI) -> None:
    """Answer errors of embedsvc, of validation and of routing in the shape of their path."""

    @app.exception_handler(EmbedsvcError)
    async def _(request: Request, error: EmbedsvcError) -> Response:
        if error.status == 500:
            _log.error("%s %s: %s", request.method, request.url.path, error.message, exc_info=error)
        return error_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        message, param = describe_violation(error.errors()[0])
        return _response(request.url.path, Problem(400, message, "invalid_input", param))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            message = f"no route {request.method} {request.url.path}; see /docs"
        elif error.status_code == 405:
            message = f"{request.url.path} does not take {request.method}"
        elif error.status_code == 400:
            message = "the body is not valid JSON in UTF-8, or it is nested too deeply"
        else:
            message = str(error.detail)
        code = _HTTP_CODES.get(error.status_code, "invalid_input")
        return _response(request.url.path, Problem(error.status_code, message, code), error.headers)


def _response(path: str, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    if len(problem.message) > _MESSAGE_CHARACTERS:
        problem = replace(problem, message=f"{problem.message[:_MESSAGE_CHARACTERS]}…")
    status, body = dialect_of(path)(problem)
    # A message may quote a lone surrogate, which UTF-8 cannot hold.
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(content, status, headers, media_type="application/json")


def describe_violation(violation: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return one of pydantic's validation errors in plain words, and the name of the field."""
    kind, given = violation["type"], violation.get("input")
    path = tuple(violation["loc"])[1:]
    context = violation.get("ctx", {})
    where, param = _place(path), str(path[0]) if path else None
    if kind == "json_invalid":
        return f"the body is not valid JSON: {context['error']} at character {path[0]}", None
    if kind == "missing":
        return (f"{where} is missing" if path else "the body is empty; a JSON object is expected"), param
    if isinstance(given, bytes):
        return "the body must be JSON, sent with the header Content-Type: application/json", None
    if kind == "value_error":
        return f"{where}: {context['error']}" if path else str(context["error"]), param
    if kind in _EXPECTED:
        return f"{where} is {_json_kind(given)}, not {_EXPECTED[kind]}", param
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{where} is {_shown(given)}; it must be {words} {context[key]}", param
    if kind == "literal_error":
        return f"{where} is {_shown(given)}; expected {context['expected']}", param
    return f"{where} is {_shown(given)}: {violation['msg']}", param


_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_JSON_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "too_short": ("a list of at least", "min_length"),
    "string_too_short": ("a string of at least", "min_length"),
}


def _place(path: tuple[str | int, ...]) -> str:
    """``("documents", 2, "text")`` → ``documents[2].text``."""
    if not path:
        return "the body"
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def _json_kind(value: object) -> str:
    return "null" if value is None else _JSON_KINDS.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
