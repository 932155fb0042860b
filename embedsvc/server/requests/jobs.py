"""Requests and answers of the job routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from embedsvc.jobs.kinds import KINDS
from embedsvc.jobs.record import State
from embedsvc.server.requests.body import StrictRequest
from embedsvc.server.requests.multipart import FORM
from embedsvc.server.schemas import ErrorDetail

Paths = Annotated[list[str], Field(min_length=1, max_length=100)]
_ABOUT_PATHS = "Files below the jobs_root."


class JobBody(StrictRequest):
    """A job on files that the server can read; uploads come as a form with parts of the same names."""

    kind: str = Field("mine", description="What to do; the answer to another one lists those that there are.")
    model: str | None = Field(None, description="The name from GET /v1/models; may be left out.")
    source: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    target: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    source_vectors: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    target_vectors: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    dev: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    source_pool: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    target_pool: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    pairs: str | Paths | None = Field(None, description=_ABOUT_PATHS)
    options: dict[str, Any] = Field({}, description="Named as the options of the command of this kind.")

    def paths(self) -> dict[str, list[str]]:
        """Return the files given under each name."""
        given = {name: getattr(self, name) for name in INPUT_NAMES}
        return {name: [value] if isinstance(value, str) else value for name, value in given.items() if value}


FIELD_NAMES = frozenset({"kind", "model", "options"})
INPUT_NAMES = frozenset(JobBody.model_fields) - FIELD_NAMES


class StageBody(BaseModel):
    stage: str
    done: int
    seconds: float


class Links(BaseModel):
    self: str
    events: str
    result: str | None = Field(description="Null until the job is done.")


class JobCard(BaseModel):
    """Times are seconds since 1970; done, total, rate and eta_s are of the stage at work."""

    id: str
    kind: str
    model: str
    options: dict[str, Any]
    state: State
    stage: str | None
    done: int | None
    total: int | None = Field(description="0: not known yet.")
    unit: str | None
    rate: float | None = Field(description="Units per second.")
    eta_s: float | None = Field(description="Seconds until this stage ends, at this rate.")
    stages: list[StageBody] = Field(description="Finished since the job was started last.")
    created: float
    started: float | None
    ended: float | None
    expires: float | None = Field(description="When the job will be deleted; null: never.")
    retries: int = Field(description="Times that its process died and was started anew.")
    error: ErrorDetail | None
    log_tail: list[str] = Field(description="The end of a failed job's log.")
    summary: dict[str, Any] | None = Field(description="What was found, once the job is done.")
    links: Links


class JobList(BaseModel):
    jobs: list[JobCard]
    next: str | None = Field(description="Give it as `after` for the next page; null at the end.")


class ResultPage(BaseModel):
    rows: list[dict[str, Any]]
    next: str | None = Field(description="Give it as `after` for the next page; null at the end.")


class JobDeleted(BaseModel):
    id: str
    outcome: Literal["cancelled", "deleted"]


class _Query(StrictRequest):
    model_config = ConfigDict(strict=False)


class ListQuery(_Query):
    """Which jobs: the newest first."""

    state: State | None = None
    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=100)


class ResultQuery(_Query):
    """A page of the result, or with `format` all of it as a file."""

    format: str | None = Field(
        None, max_length=20, description="jsonl, tsv, parquet, tmx, xliff: the whole, as a file."
    )
    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=100, description="The `next` of the page before.")
    min_score: float | None = Field(None, allow_inf_nan=False)


def form_schema() -> dict[str, Any]:
    """Return the form of an upload for the OpenAPI document; /docs shows a field for each part."""
    parts: dict[str, Any] = {
        "kind": {"type": "string", "enum": list(KINDS), "default": "mine"},
        "model": {"type": "string", "description": "The name from GET /v1/models; may be left out."},
    }
    about = {known.name: known for kind in reversed(KINDS.values()) for known in kind.inputs}
    for name, known in about.items():
        file = {"type": "string", "format": "binary"}
        schema = {"type": "array", "items": file, "minItems": 1} if known.many else file
        parts[name] = {**schema, "description": known.about}
    parts["options"] = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "A JSON object; its keys are the options of the command of this kind.",
    }
    return {FORM: {"schema": {"type": "object", "properties": parts, "additionalProperties": False}}}
