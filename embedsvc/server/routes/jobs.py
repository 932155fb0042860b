"""Jobs: long work on uploaded files or files of the server, in a process of its own at low priority."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from embedsvc.errors import EmbedsvcError, InvalidInputError, JobStateError
from embedsvc.jobs.kinds import kind_of
from embedsvc.jobs.result import PageQuery, read_page
from embedsvc.jobs.store import INPUTS, RESULT, Job
from embedsvc.jobs.worker import RESULT_LINES
from embedsvc.server.errors import error_response
from embedsvc.server.events import EVENT_STREAM, events_of, last_event_id
from embedsvc.server.inference import state_of
from embedsvc.server.jobs import PATH, Jobs, NewJob, parsed_fields
from embedsvc.server.requests.body import NDJSON, body_of, query_of, read_body, read_query
from embedsvc.server.requests.jobs import (
    FIELD_NAMES,
    INPUT_NAMES,
    JobBody,
    JobCard,
    JobDeleted,
    JobList,
    ListQuery,
    ResultQuery,
    form_schema,
)
from embedsvc.server.requests.lines import ClientGoneError, body_chunks
from embedsvc.server.requests.multipart import Form, FormRules, is_form, read_form, too_large
from embedsvc.server.state import StateDep

_CANCEL_S = 10.0
_BODY = body_of(JobBody)
_BODY["requestBody"]["content"] = form_schema() | _BODY["requestBody"]["content"]
router = APIRouter(prefix=PATH, tags=["jobs"])
