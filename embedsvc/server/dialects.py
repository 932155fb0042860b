"""How each service tells errors: OpenAI's shape everywhere, but on the routes of other services theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

COHERE_PATHS = frozenset({"/v1/embed", "/v2/embed", "/v1/rerank", "/v2/rerank"})
TEI_PATHS = frozenset(
    {
        "/",
        "/decode",
        "/embed",
        "/embed_all",
        "/embed_sparse",
        "/info",
        "/predict",
        "/rerank",
        "/similarity",
        "/tokenize",
    }
)
_OPENAI_TYPES = {404: "not_found_error", 429: "overloaded_error"}


@dataclass(frozen=True)
class Problem:
    """An error as the server knows it, before it is told."""

    status: int
    message: str
    code: str
    param: str | None = None


Dialect = Callable[[Problem], tuple[int, object]]


def dialect_of(path: str) -> Dialect:
    """Return what turns a problem of this path into a status and a JSON value."""
    if path in TEI_PATHS:
        return _tei
    return _cohere if path in COHERE_PATHS else _openai


def _openai(problem: Problem) -> tuple[int, object]:
    other = "server_error" if problem.status >= 500 else "invalid_request_error"
    told = {
        "message": problem.message,
        "type": _OPENAI_TYPES.get(problem.status, other),
        "code": problem.code,
        "param": problem.param,
    }
    return problem.status, {"error": told}


def _tei(problem: Problem) -> tuple[int, object]:
    status, error_type = problem.status, "Validation"
    if status == 400:
        status, error_type = (400, "Empty") if problem.code == "empty_batch" else (422, "Validation")
    elif status == 429:
        error_type = "Overloaded"
    elif status == 503:
        error_type = "Unhealthy"
    elif status >= 500 or status == 424:
        status, error_type = 424, "Backend"
    return status, {"error": problem.message, "error_type": error_type}


def _cohere(problem: Problem) -> tuple[int, object]:
    return problem.status, {"message": problem.message}
