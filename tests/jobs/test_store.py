from __future__ import annotations

import pytest

from embedsvc.errors import NotFoundError, StorageError
from embedsvc.jobs.record import Failure, JobRecord, JobRequest
from embedsvc.jobs.store import INPUTS, JobStore, new_job_id


def admitted(store: JobStore, **given: object) -> str:
    request = JobRequest(
        **{
            "id": new_job_id(),
            "kind": "toy",
            "created": 5.0,
            "inputs": {"source": ("inputs/a.txt",)},
            "options": {},
            "model": "m",
            "client": "c",
            **given,
        }
    )
    with store.draft() as draft:
        (draft / INPUTS / "a.txt").write_text("a")
        store.admit(draft, request)
    return request.id


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path)


def test_what_is_admitted_is_there_for_every_server(store, tmp_path):
    first, second = admitted(store), admitted(store, options={"note": "ä"})
    other = JobStore(tmp_path)
    assert other.ids() == sorted([first, second])
    job = other.job(second)
    assert (job.request.options, job.record.state, job.progress.stages) == ({"note": "ä"}, "queued", [])
    assert [(event.id, event.data) for event in job.record.events] == [(1, {"state": "queued"})]
    assert (other.path(second) / "inputs" / "a.txt").read_text() == "a"


def test_nothing_is_left_of_an_upload_that_fails(store):
    with pytest.raises(FileNotFoundError), store.draft() as draft:
        (draft / INPUTS / "none" / "a.txt").write_text("a")
    assert {path.name for path in store.folder.iterdir()} == {".signals"}


def test_sweeping_takes_what_a_killed_server_left_and_nothing_that_is_in_use(store):
    left = store.folder / ".draft-left"
    (left / INPUTS).mkdir(parents=True)
    (store.folder / ".deleted-left").mkdir()
    with store.draft() as draft:
        store.sweep()
        assert draft.is_dir()
        assert not left.exists()
    assert not (store.folder / ".deleted-left").exists()


@pytest.mark.parametrize("job_id", ["", "..", "job-", "../jobs", f"job-{0:020}", "x" * 500, f"job-٠{0:019}"])
def test_unknown_ids_are_not_found(store, job_id):
    with pytest.raises(NotFoundError, match="no job"):
        store.record(job_id)


def test_a_damaged_record_is_named(store):
    job_id = admitted(store)
    (store.path(job_id) / "record.json").write_text('{"state": "queue')
    with pytest.raises(StorageError, match=r"record.json is damaged"):
        store.record(job_id)


def test_signals_are_taken_once(store):
    job_id = admitted(store)
    store.signal(job_id, "cancel")
    store.signal(job_id, "cancel")
    (store.folder / ".signals" / "nonsense").touch()
    assert store.take_signals() == [(job_id, "cancel")]
    assert store.take_signals() == []


def test_a_cancelled_job_keeps_its_record_and_a_deleted_one_nothing(store):
    job_id = admitted(store)
    store.empty(job_id)
    assert {path.name for path in store.path(job_id).iterdir()} == {"request.json", "record.json"}
    store.delete(job_id)
    assert {path.name for path in store.folder.iterdir()} == {".signals"}
    with pytest.raises(NotFoundError):
        store.delete(job_id)


def test_one_server_runs_the_jobs(store, tmp_path):
    with store.only_runner() as first, JobStore(tmp_path).only_runner() as second:
        assert (first, second) == (True, False)
    with store.only_runner() as again:
        assert again


def test_events_have_ids_that_never_come_again():
    record = JobRecord()
    for number in range(1100):
        record = record.noting(number, "stage", {})
    assert [event.id for event in record.events] == list(range(101, 1101))
    failed = record.becoming("failed", 1.0, failure=Failure(status=400, code="c", message="why"))
    assert (failed.events[-1].id, failed.events[-1].data) == (1101, {"state": "failed", "message": "why"})


def test_the_reserve_lets_the_end_be_written_on_a_full_disk(store, monkeypatch):
    job_id = admitted(store)
    reserve = store.path(job_id) / "reserve"
    assert reserve.stat().st_size == 64 * 1024
    write = store._write

    def full(id_, record):
        if reserve.exists():
            raise OSError(28, "No space left on device")
        write(id_, record)

    monkeypatch.setattr(store, "_write", full)
    store.write(job_id, JobRecord(state="failed"))
    assert store.record(job_id).state == "failed"
    assert not reserve.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(StorageError, match="jobs cannot be used: "):
        JobStore(tmp_path)
