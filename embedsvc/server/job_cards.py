"""Jobs as the API tells of them."""

from __future__ import annotations

from typing import Any

from embedsvc.jobs.progress import Stage
from embedsvc.jobs.record import Failure
from embedsvc.jobs.store import Job
from embedsvc.server.dialects import Problem, dialect_of
from embedsvc.server.requests.jobs import JobCard, Links, StageBody
from embedsvc.server.schemas import ErrorDetail

PATH = "/v1/jobs"


def card_of(job: Job, retention_s: float | None) -> JobCard:
    """Return all that is known of a job; its ``error`` is what an HTTP answer would say."""
    request, record, stages = job.request, job.record, job.progress.stages
    is_running = record.state == "running"
    finished = stages[:-1] if is_running else stages
    return JobCard(
        id=request.id,
        kind=request.kind,
        model=request.model,
        options=request.options,
        state=record.state,
        **stage_facts(stages[-1] if stages and is_running else None),
        stages=[
            StageBody(stage=stage.stage, done=stage.done, seconds=round(stage.seconds, 3))
            for stage in finished
        ],
        created=round(request.created, 3),
        started=_rounded(record.started),
        ended=_rounded(record.ended),
        expires=_rounded(record.ended + retention_s if record.ended and retention_s else None),
        retries=record.deaths,
        error=_error(record.failure),
        log_tail=list(record.log_tail),
        summary=record.summary,
        links=_links(job),
    )


def stage_facts(stage: Stage | None) -> dict[str, Any]:
    """Return how far the stage at work is; nulls without one."""
    if stage is None:
        return dict.fromkeys(("stage", "done", "total", "unit", "rate", "eta_s"))
    return {
        "stage": stage.stage,
        "done": stage.done,
        "total": stage.total,
        "unit": stage.unit,
        "rate": _rounded(stage.rate),
        "eta_s": _rounded(stage.eta_s),
    }


def _links(job: Job) -> Links:
    own = f"{PATH}/{job.request.id}"
    return Links(
        self=own,
        events=f"{own}/events",
        result=f"{own}/result" if job.record.state == "done" else None,
    )


def _error(failure: Failure | None) -> ErrorDetail | None:
    if failure is None:
        return None
    problem = Problem(failure.status, failure.message, failure.code, failure.param)
    _, told = dialect_of(PATH)(problem)
    return ErrorDetail.model_validate(told["error"])  # type: ignore[index]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
