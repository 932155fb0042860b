"""What the job routes share: new jobs from uploads and paths, and jobs as the API tells of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from fastapi import Request

from embedsvc.errors import EmbedsvcError, InvalidInputError, OverloadedError
from embedsvc.jobs.export import Exports
from embedsvc.jobs.job_process import ModelChoice
from embedsvc.jobs.kind import JobKind
from embedsvc.jobs.kinds import checked_options, kind_of
from embedsvc.jobs.priority import job_threads
from embedsvc.jobs.record import STATES, JobRecord, JobRequest
from embedsvc.jobs.rooted import file_below
from embedsvc.jobs.runner import JobRunner, RunnerOptions
from embedsvc.jobs.store import INPUTS, Job, JobStore, new_job_id
from embedsvc.runtime import RuntimeOptions
from embedsvc.server.job_cards import card_of
from embedsvc.server.metrics import Metrics
from embedsvc.server.models import ModelSet
from embedsvc.server.requests.jobs import (
    FIELD_NAMES,
    INPUT_NAMES,
    JobCard,
    JobList,
    ListQuery,
)
from embedsvc.server.requests.multipart import FormRules, read_form
from embedsvc.settings import Settings

_RETRY_S = 60
_SEEN_S = 0.05  # how often a request looks whether the runner has done what it waits for


@dataclass(frozen=True)
class NewJob:
    """What a client asks for, checked."""

    kind: str
    model: str
    options: dict[str, Any]
    client: str


class Jobs:
    """The jobs of a server."""

    def __init__(self, settings: Settings, models: ModelSet, metrics: Metrics) -> None:
        self._settings = settings
        self._models = models
        self.store = JobStore(settings.data_dir)
        options = RunnerOptions(
            settings.max_running_jobs,
            job_threads(settings.job_threads),
            settings.job_niceness,
            settings.job_retention_s,
        )
        self.runner = JobRunner(self.store, self._model_choice, options)
        for state in STATES:
            metrics.watch_jobs(state, partial(self.runner.count, state))
        self.exports = Exports()
        self.runner.start()

    def _model_choice(self, name: str) -> ModelChoice:
        settings = self._settings
        options = RuntimeOptions(settings.runtime, settings.job_device, settings.precision)
        return ModelChoice(str(self._models.find(name).folder.path), options)

    def check_room(self) -> None:
        """Raise OverloadedError when as many jobs wait or run as may."""
        limit = self._settings.max_queued_jobs
        unfinished = sum(map(self._is_unfinished, self.store.ids()))
        if unfinished >= limit:
            raise OverloadedError(
                f"{unfinished} jobs wait or run; max_queued_jobs = {limit}; try again later",
                retry_after=_RETRY_S,
            )

    def _is_unfinished(self, job_id: str) -> bool:
        try:
            return not self.store.record(job_id).has_ended
        except EmbedsvcError:  # deleted meanwhile, or damaged
            return False

    def checked(self, fields: Mapping[str, Any], client: str) -> NewJob:
        """Return the request for a job; raise InvalidInputError or ModelNotFoundError."""
        name = fields.get("kind") or "mine"
        options = checked_options(kind_of(name), fields.get("options") or {})
        options = options | ray_cluster(options, self._settings.ray_address)
        return NewJob(name, self._models.find(fields.get("model") or None).name, options, client)

    def admit(self, draft: Path, new: NewJob, files: Mapping[str, Sequence[Path]]) -> Job:
        """Store a job whose uploads are in the draft and let it run.

        Raises InvalidInputError for missing files, OverloadedError when there are too many jobs.
        """
        check_inputs(kind_of(new.kind), files)
        self.check_room()
        inputs = {name: tuple(_kept_path(path, draft) for path in paths) for name, paths in files.items()}
        request = JobRequest(
            id=new_job_id(),
            kind=new.kind,
            created=time.time(),
            inputs=inputs,
            options=new.options,
            model=new.model,
            client=new.client,
        )
        self.store.admit(draft, request)
        self.runner.wake()
        return self.store.job(request.id)

    def admit_paths(self, new: NewJob, paths: Mapping[str, Sequence[str]]) -> Job:
        """Store a job on files below the jobs_root and let it run.

        Raises InvalidInputError or NotFoundError for wrong paths, and as `admit`.
        """
        root = self._settings.jobs_root
        if root is None:
            raise InvalidInputError(
                "this server has no jobs_root, so that it reads no files by their path; upload them as "
                "multipart/form-data"
            )
        files = {
            name: [file_below(root, path, param=name) for path in given] for name, given in paths.items()
        }
        with self.store.draft() as draft:
            return self.admit(draft, new, files)

    async def upload(self, request: Request, chunks: AsyncIterator[bytes]) -> Job:
        """Store the job of a form, while it is read, and let it run.

        Raises as `read_form`, `checked` and `admit`; nothing is left of it then.
        """
        settings = self._settings
        rules = FormRules(
            INPUT_NAMES, FIELD_NAMES, self._check_field, settings.max_upload_bytes, settings.max_body_bytes
        )
        async with _in_threads(self.store.draft()) as draft:
            form = await read_form(chunks, request.headers["content-type"], draft / INPUTS, rules)
            new = self.checked(parsed_fields(form.fields), request.state.client)
            return await asyncio.to_thread(self.admit, draft, new, form.files)

    def _check_field(self, name: str, text: str) -> None:
        """Refuse what is wrong with one field before the files behind it are read."""
        if name == "kind":
            kind_of(text)
        elif name == "model":
            self._models.find(text or None)
        else:
            parsed_fields({name: text})

    def listed(self, query: ListQuery) -> JobList:
        """Return the cards of jobs, the newest first, in pages."""
        cards: list[JobCard] = []
        for job_id in reversed(self.store.ids()):
            if query.after is not None and job_id >= query.after:
                continue
            if len(cards) == query.limit:
                return JobList(jobs=cards, next=cards[-1].id)
            with suppress(EmbedsvcError):  # deleted meanwhile, or damaged
                job = self.store.job(job_id)
                if query.state in (None, job.record.state):
                    cards.append(self.card(job))
        return JobList(jobs=cards, next=None)

    async def until(self, job_id: str, condition: Callable[[JobRecord], bool], seconds: float) -> JobRecord:
        """Wake the runner and wait until a job's record is as wanted; return it as it is then."""
        self.runner.wake()
        deadline = time.monotonic() + seconds
        while True:
            record = await asyncio.to_thread(self.store.record, job_id)
            if condition(record) or time.monotonic() > deadline:
                return record
            await asyncio.sleep(_SEEN_S)

    def card(self, job: Job) -> JobCard:
        """Return a job as the API tells of it."""
        return card_of(job, self._settings.job_retention_s)

    async def close(self) -> None:
        """End the processes of running jobs; the next server goes on with them."""
        await self.exports.close()
        await asyncio.to_thread(self.runner.close)


def _kept_path(path: Path, draft: Path) -> str:
    """Return a path as the job keeps it: that of an upload relative to the job's folder, which will move."""
    return str(path.relative_to(draft) if path.is_relative_to(draft) else path)


@asynccontextmanager
async def _in_threads(context: AbstractContextManager[Path]) -> AsyncIterator[Path]:
    """Enter and leave a context in threads: files are made and deleted there."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def parsed_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a form, its options as an object; raise InvalidInputError."""
    parsed: dict[str, Any] = dict(fields)
    text = fields.get("options", "")
    try:
        parsed["options"] = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"options is not valid JSON: {error}", param="options") from error
    if not isinstance(parsed["options"], dict):
        raise InvalidInputError("options is not a JSON object", param="options")
    return parsed


def check_inputs(kind: JobKind, files: Mapping[str, Sequence[Path]]) -> None:
    """Raise InvalidInputError unless a kind has the files that it needs and no others."""
    for group in kind.needs:
        if not any(files.get(name) for name in group):
            known = kind.input(group[0])
            about = f": {known.about}" if known else ""
            raise InvalidInputError(f"{' or '.join(group)} is missing{about}", param=group[0])
    for name in files:
        known = kind.input(name)
        count = len(files[name])
        if known is None:
            takes = ", ".join(known.name for known in kind.inputs)
            raise InvalidInputError(f"this kind of job takes no {name}; it takes {takes}", param=name)
        if count > 1 and not known.many:
            raise InvalidInputError(f"{name} is one file; {count} came", param=name)


def ray_cluster(options: Mapping[str, Any], address: str | None) -> dict[str, Any]:
    """Return the cluster of a job that asks for one: the server's own.

    Who is in a cluster can run any code in it and in what connects to it, so clients do not choose it.
    Raises InvalidInputError when the server has none, or the client names another.
    """
    if options.get("engine") != "ray":
        return {}
    if address is None:
        raise InvalidInputError(
            "options: engine is 'ray': this server has no ray_address; jobs compute on its machine only",
            param="options",
        )
    if options["ray_address"] not in (None, address):
        raise InvalidInputError(
            "options: ray_address is not that of this server; leave it out", param="options"
        )
    return {"ray_address": address}
