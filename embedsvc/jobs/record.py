"""What is kept of a job: what was asked for, which never changes, and how it stands."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
_MOST_EVENTS = 1000  # the oldest are forgotten

EventKind = Literal["state", "stage", "retry"]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobRequest(_Kept):
    """What was asked for. Times are seconds since 1970.

    A file in ``inputs`` is relative to the job's folder (an upload) or absolute (below the jobs_root).
    """

    id: str
    kind: str
    created: float
    inputs: dict[str, tuple[str, ...]]
    options: dict[str, Any]
    model: str
    client: str


class Failure(_Kept):
    """Why a job failed, in the words of an HTTP error."""

    status: int
    code: str
    message: str
    param: str | None = None


class Event(_Kept):
    """Something that happened; ids count from 1."""

    id: int
    at: float
    event: EventKind
    data: dict[str, Any]


class JobRecord(_Kept):
    """How a job stands; ``deaths``: how often its process ended without a word since it was queued."""

    state: State = "queued"
    started: float | None = None
    ended: float | None = None
    deaths: int = 0
    failure: Failure | None = None
    log_tail: tuple[str, ...] = ()
    summary: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def noting(self, at: float, event: EventKind, data: dict[str, Any]) -> JobRecord:
        """Return the record with one event more."""
        number = self.events[-1].id + 1 if self.events else 1
        events = (*self.events, Event(id=number, at=at, event=event, data=data))
        return self.model_copy(update={"events": events[-_MOST_EVENTS:]})

    def becoming(self, state: State, at: float, **changes: Any) -> JobRecord:
        """Return the record in another state, the change noted as an event."""
        changed = self.model_copy(update={**changes, "state": state})
        message = {"message": changed.failure.message} if state == "failed" and changed.failure else {}
        return changed.noting(at, "state", {"state": state, **message})
