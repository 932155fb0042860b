"""Jobs: long work on uploaded files or files of the server, in a process of its own at low priority."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from embedsvc.errors import EmbedsvcError, InvalidInputError, JobStateError, UnavailableError
from embedsvc.jobs.kinds import kind_of
from embedsvc.jobs.result import PageQuery, read_page
from embedsvc.jobs.store import RESULT_LINES, Job
from embedsvc.server.answers import json_bytes
from embedsvc.server.errors import error_response
from embedsvc.server.events import EVENT_STREAM, events_of, last_event_id
from embedsvc.server.files import CheckedFile
from embedsvc.server.inference import state_of
from embedsvc.server.job_cards import PATH
from embedsvc.server.jobs import Jobs
from embedsvc.server.requests.body import NDJSON, body_of, is_json, query_of, read_body, read_query
from embedsvc.server.requests.jobs import (
    JobBody,
    JobCard,
    JobDeleted,
    JobList,
    ListQuery,
    ResultPage,
    ResultQuery,
    form_schema,
)
from embedsvc.server.requests.lines import ClientGoneError, body_chunks
from embedsvc.server.requests.multipart import FORM, is_form, too_large
from embedsvc.server.state import ServerState, StateDep

_OBEYED_S = 10.0
_DISCARDED_BODIES = 8  # as much of a refused upload is read as of any refused body
_BODY = body_of(JobBody)
_BODY["requestBody"]["content"] = form_schema() | _BODY["requestBody"]["content"]
_MEDIA_TYPES = {
    "jsonl": NDJSON,
    "tsv": "text/tab-separated-values; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "tmx": "application/x-tmx+xml",
    "xliff": "application/xliff+xml",
}
router = APIRouter(prefix=PATH, tags=["jobs"])


@router.post("", status_code=202, responses={202: {"model": JobCard}}, openapi_extra=_BODY)
async def create_job(request: Request) -> Response:
    """Take a job, which runs when its turn comes: files as a form, or paths below the jobs_root as JSON.

    Compressed files are taken as they are (.gz, .xz, .zst). Options are checked now, the files by the job.
    """
    jobs = state_of(request).jobs
    await state_of(request).storage.run(jobs.check_room)
    if is_form(request.headers):
        return await _uploaded(request, jobs)
    if not is_json(request.headers):
        raise InvalidInputError(f"send {FORM} with files, or application/json with paths")
    body = await read_body(request, JobBody)
    new = jobs.checked(body.model_dump(), request.state.client)
    return _accepted(jobs, await state_of(request).storage.run(jobs.admit_paths, new, body.paths()))


@router.get("", openapi_extra=query_of(ListQuery))
async def list_jobs(request: Request, state: StateDep) -> JobList:
    """List the jobs, the newest first."""
    query = read_query(request, ListQuery)
    return await state.storage.run(state.jobs.listed, query)


@router.get("/{job_id}")
async def describe_job(job_id: str, state: StateDep) -> JobCard:
    """Say how a job stands and how far it is."""
    return state.jobs.card(await state.storage.run(state.jobs.store.job, job_id))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}, 204: {}},
)
async def job_events(request: Request, job_id: str) -> Response:
    """Tell what happens to a job, as server-sent events, until it has ended.

    `state`, `stage` (one is finished) and `retry` have ids: with the header Last-Event-ID only those after it
    are told, and 204 when there will be none. `progress` tells how far the stage at work is.
    """
    state = state_of(request)
    seen = last_event_id(request)
    job = await state.storage.run(state.jobs.store.job, job_id)
    if job.record.has_ended and not any(event.id > seen for event in job.record.events):
        return Response(status_code=204)
    state.listeners.check_room()

    async def is_over() -> bool:
        return request.app.state.draining or await request.is_disconnected()

    async def told() -> AsyncIterator[bytes]:
        with state.listeners.one_more():
            async for event in events_of(lambda: state.jobs.store.job(job_id), seen, is_over):
                yield event

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(told(), media_type=EVENT_STREAM, headers=headers)


@router.get(
    "/{job_id}/result",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/json": {"schema": ResultPage.model_json_schema()},
                **{media_type: {"schema": {"type": "string"}} for media_type in _MEDIA_TYPES.values()},
            }
        },
        206: {"description": "The part that the header Range asks for."},
    },
    openapi_extra=query_of(ResultQuery),
)
async def job_result(request: Request, job_id: str) -> Response:
    """Return the result of a job that is done: a page of it, or with `format` the whole as a file.

    What is mined comes best first. The header Accept may name the format, too, as its media type. A file may
    be asked for in parts (the header Range).
    """
    query = read_query(request, ResultQuery)
    state = state_of(request)
    job = await state.storage.run(state.jobs.store.job, job_id)
    if job.record.state != "done":
        raise JobStateError(f"{job_id} is {job.record.state}; there is a result when a job is done")
    format = query.format or _accepted_format(request)
    if format is not None:
        return await _file(state, job, format)
    path = state.jobs.store.path(job_id) / RESULT_LINES
    asked = PageQuery(query.limit, query.after, query.min_score)
    best_first = kind_of(job.request.kind).best_first
    page = await state.storage.run(read_page, path, asked, best_first=best_first)
    content = b'{"rows":[%b],"next":%b}' % (b",".join(page.lines), json_bytes(page.next))
    return Response(content, media_type="application/json")


@router.post("/{job_id}/resume")
async def resume_job(job_id: str, state: StateDep) -> JobCard:
    """Go on with a job that has failed, from where it was: the disk has room again, the model is back."""
    jobs = state.jobs
    record = await state.storage.run(jobs.store.record, job_id)
    if record.state != "failed":
        raise JobStateError(f"{job_id} is {record.state}; only a failed job can be resumed")
    await state.storage.run(jobs.check_room)
    await state.storage.run(jobs.store.signal, job_id, "resume")
    await jobs.until(job_id, lambda now: now.ended != record.ended, _OBEYED_S)
    return jobs.card(await state.storage.run(jobs.store.job, job_id))


@router.delete("/{job_id}")
async def delete_job(job_id: str, state: StateDep) -> JobDeleted:
    """Cancel a job that waits or runs: all but its record is deleted; delete one that has ended."""
    jobs = state.jobs
    record = await state.storage.run(jobs.store.record, job_id)
    if not record.has_ended:
        await state.storage.run(jobs.store.signal, job_id, "cancel")
        record = await jobs.until(job_id, lambda now: now.has_ended, _OBEYED_S)
        if not record.has_ended:
            raise UnavailableError(f"{job_id} will be cancelled; the server that runs it has not done so yet")
        if record.state == "cancelled":
            return JobDeleted(id=job_id, outcome="cancelled")
    await state.writes.run(jobs.store.delete, job_id)
    jobs.runner.wake()
    return JobDeleted(id=job_id, outcome="deleted")


async def _uploaded(request: Request, jobs: Jobs) -> Response:
    """Store an upload; of a wrong one the rest is read, within limits, so that the client hears of it."""
    settings = state_of(request).settings
    chunks = body_chunks(request.receive, settings.request_timeout_s)
    try:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > settings.max_upload_bytes:
            raise too_large(settings.max_upload_bytes)
        return _accepted(jobs, await jobs.upload(request, chunks))
    except EmbedsvcError as error:
        with suppress(ClientGoneError, EmbedsvcError):
            await _discard(chunks, _DISCARDED_BODIES * settings.max_body_bytes)
        answer = error_response(error, request.url.path)
        answer.headers["Connection"] = "close"
        return answer
    except ClientGoneError:
        return Response(status_code=499)  # nobody reads it; the log does


def _accepted_format(request: Request) -> str | None:
    """Return the format whose media type the client asks for; None for a page of JSON."""
    wanted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    for format, media_type in _MEDIA_TYPES.items():
        if media_type.partition(";")[0] in wanted:
            return format
    return None


async def _file(state: ServerState, job: Job, format: str) -> Response:
    known = kind_of(job.request.kind).formats
    if format not in known:
        raise InvalidInputError(f"format is {format!r}; known: {', '.join(known)}", param="format")
    options = job.request.options
    languages = options.get("src_lang"), options.get("tgt_lang")
    folder = state.jobs.store.path(job.request.id)
    path = await state.jobs.exports.file(folder, format, languages)
    return CheckedFile(path, media_type=_MEDIA_TYPES[format], filename=f"{job.request.id}.{format}")


async def _discard(chunks: AsyncIterator[bytes], most: int) -> None:
    async for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            return


def _accepted(jobs: Jobs, job: Job) -> Response:
    card = jobs.card(job)
    headers = {"Location": card.links.self}
    return Response(card.model_dump_json(), 202, headers, media_type="application/json")
