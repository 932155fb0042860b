"""Jobs with real servers and real processes, which are killed at bad moments."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import error_of
from tests.server.job_client import JobServer
from tests.server.processes import is_gone, until

COUNTS = [
    {"score": 4, "line": 4, "text": "seven eight nine ten"},
    {"score": 3, "line": 3, "text": "four five six"},
    {"score": 2, "line": 1, "text": "one two"},
    {"score": 1, "line": 2, "text": "three"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    server = JobServer(tmp_path_factory.mktemp("data"), "--max-queued-jobs", "5")
    yield server
    server.end()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_job_from_its_upload_to_its_result(server):
    answer = server.upload(pause_s=0.5)  # long enough for a listener to come in time
    card = answer.json()
    job_id = card["id"]
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job_id}")
    assert (card["state"], card["kind"], card["options"]["pause_s"]) in (
        ("queued", "toy", 0.5),
        ("running", "toy", 0.5),
    )
    events = server.events(job_id)
    told = [event["data"].get("state") or event["data"]["stage"] for event in events if "id" in event]
    assert told == ["queued", "running", "count", "done"]
    assert [event["id"] for event in events if "id" in event] == ["1", "2", "3", "4"]
    assert {event["event"] for event in events} == {"state", "stage", "progress"}
    card = server.job(job_id)
    assert (card["state"], card["error"], card["retries"]) == ("done", None, 0)
    assert card["summary"] == {"lines": 4, "starts": 1}
    assert card["created"] <= card["started"] <= card["ended"]
    assert [json.loads(line) for line in server.result(job_id).splitlines()] == COUNTS
    page = server.http.get(card["links"]["result"], params={"limit": 1, "min_score": 2}).json()
    assert page["rows"] == COUNTS[:1]
    page = server.http.get(
        card["links"]["result"], params={"limit": 5, "min_score": 2, "after": page["next"]}
    ).json()
    assert page == {"rows": COUNTS[1:3], "next": None}
    part = server.http.get(
        card["links"]["result"], params={"format": "jsonl"}, headers={"Range": "bytes=1-7"}
    )
    assert (part.status_code, part.content) == (206, b'"score"')
    assert server.events(job_id, after=3) == events[-1:]
    assert server.events(job_id, after=4) == []
    assert server.metric('embedsvc_jobs_in_state{state="done"}') >= 1
    assert server.http.delete(f"/v1/jobs/{job_id}").json() == {"id": job_id, "outcome": "deleted"}
    assert not (server.jobs / job_id).exists()
    error_of(server.http.get(f"/v1/jobs/{job_id}"), 404, "not_found")


SOURCE = ["The cat sleeps.", "It is raining.", "The library opens at nine.", "We went to the market."]
TARGET = ["Es regnet.", "Die Katze schläft.", "Wir gingen zum Markt.", "Die Bibliothek öffnet um neun."]


@pytest.mark.slow
def test_sentences_are_mined_as_the_library_does(server, tmp_path):
    from embedsvc import load_encoder
    from embedsvc.mining.options import MiningOptions
    from embedsvc.mining.pipeline import mine_files
    from embedsvc.mining.sides import MiningInputs

    files = {
        "source": ("en.txt", "\n".join(SOURCE)),
        "target": ("de.txt.gz", gzip.compress("\n".join(TARGET).encode())),
    }
    options = {"k": 2, "threshold": 0.9, "src_lang": "en", "tgt_lang": "de"}
    answer = server.http.post("/v1/jobs", files=files, data={"options": json.dumps(options)})
    job_id = answer.json()["id"]
    card = server.wait(job_id, "done", "failed")
    assert card["state"] == "done", card
    assert {stage["stage"] for stage in card["stages"]} >= {"encode source", "neighbours", "write"}
    for name, content in ("en.txt", "\n".join(SOURCE).encode()), ("de.txt.gz", files["target"][1]):
        (tmp_path / name).write_bytes(content)
    inputs = MiningInputs(source=[tmp_path / "en.txt"], target=[tmp_path / "de.txt.gz"])
    for name in ("jsonl", "tsv"):
        out = tmp_path / f"pairs.{name}"
        mine_files(inputs, out, MiningOptions(**options), encoder=load_encoder())
        assert out.read_bytes() == server.http.get(card["links"]["result"], params={"format": name}).content
    rows = server.http.get(card["links"]["result"]).json()["rows"]
    assert {(row["src_line"], row["tgt_line"]) for row in rows} == {(1, 2), (2, 1), (3, 4), (4, 3)}
    tmx = server.http.get(card["links"]["result"], headers={"Accept": "application/x-tmx+xml"})
    assert tmx.content.count(b"<tu ") == 4
    assert b'srclang="en"' in tmx.content
    assert tmx.headers["content-disposition"] == f'attachment; filename="{job_id}.tmx"'


def sentences(count: int, seed: int) -> bytes:
    rng = random.Random(seed)
    words = [word for text in (*SOURCE, *TARGET) for word in text.split()]
    return "\n".join(" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(count)).encode()


@pytest.mark.slow
def test_mining_killed_at_several_stages_gives_the_same_bytes(server):
    files = {"source": ("a.txt", sentences(8_000, 1)), "target": ("b.txt", sentences(8_000, 2))}
    form = {"options": '{"threshold": 1.0}'}
    expected = server.result(
        server.wait(server.http.post("/v1/jobs", files=files, data=form).json()["id"], "done")["id"]
    )
    assert expected.count(b"\n") > 1000
    job_id = server.http.post("/v1/jobs", files=files, data=form).json()["id"]
    killed = []
    for stage in ("read source", "neighbours"):
        until(lambda: server.job(job_id)["stage"] == stage, seconds=60)  # noqa: B023
        (pid,) = server.model_pids()
        os.kill(pid, signal.SIGKILL)
        killed.append(server.job(job_id)["stages"])
        until(lambda: server.job(job_id)["retries"] == len(killed))
    assert server.result(server.wait(job_id, "done")["id"]) == expected


@pytest.mark.slow
def test_pairs_are_scored_and_documents_aligned(server):
    right = [TARGET[1], TARGET[0], TARGET[3], TARGET[2]]
    pairs = "src\ttgt\n" + "".join(f"{a}\t{b}\n" for a, b in zip(SOURCE, right, strict=True)) + "x\t \n"
    form = {"kind": "score", "options": '{"k": 2}'}
    answer = server.http.post("/v1/jobs", files={"pairs": ("p.tsv", pairs)}, data=form)
    card = server.wait(answer.json()["id"], "done", "failed")
    assert card["summary"] == {"read": 5, "written": 5, "without_score": 1, "reasons": {}}, card
    link = card["links"]["result"]
    rows = server.http.get(link).json()["rows"]
    assert [row["src"] for row in rows] == [*SOURCE, "x"]
    assert [row["score"] is None for row in rows] == [False] * 4 + [True]
    assert len(server.http.get(link, params={"min_score": -9}).json()["rows"]) == 4

    files = {"source": ("en.txt", "\n".join(SOURCE)), "target": ("de.txt", "\n".join(right))}
    answer = server.http.post("/v1/jobs", files=files, data={"kind": "align", "options": '{"max_bead": 2}'})
    card = server.wait(answer.json()["id"], "done", "failed")
    assert card["summary"] == {"beads": 4}, card
    rows = server.http.get(card["links"]["result"]).json()["rows"]
    assert [(row["src_id"], row["tgt_id"]) for row in rows] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
    ]


@pytest.mark.slow
def test_a_bad_byte_is_told_with_its_file_and_line(server):
    files = {"source": ("en.txt", b"good\nb\xffd\n"), "target": ("de.txt", b"gut\n")}
    answer = server.http.post("/v1/jobs", files=files)
    card = server.wait(answer.json()["id"], "failed")
    assert card["error"]["message"] == "en.txt line 2: byte 0xff at position 1 is not UTF-8"
    assert card["error"]["code"] == "invalid_input"


@pytest.mark.slow
def test_a_killed_job_goes_on_and_gives_the_same_bytes(server):
    expected = server.result(server.wait(server.submit(pause_s=0.0), "done")["id"])
    job_id = server.submit(pause_s=0.3)
    os.kill(server.pid(job_id), signal.SIGKILL)
    until(lambda: server.job(job_id)["retries"] == 1)
    card = server.wait(job_id, "done")
    assert card["summary"]["starts"] == 2
    assert server.result(job_id) == expected
    retry = [event for event in server.events(job_id, after=0) if event["event"] == "retry"]
    assert retry[0]["data"]["message"] == "the process of the job was ended by SIGKILL (out of memory?)"


@pytest.mark.slow
def test_a_job_that_dies_again_and_again_fails_with_the_end_of_its_log(server):
    job_id = server.submit(what="die", at=2)
    card = server.wait(job_id, "failed")
    assert server.starts(job_id) == 3
    assert card["error"] == {
        "message": "the process of the job was ended by SIGKILL (out of memory?), as it did 2 times before; "
        "its log ends with log_tail",
        "type": "server_error",
        "code": "job_died",
        "param": None,
    }
    assert card["log_tail"][-1] == "started"
    error_of(server.http.get(f"/v1/jobs/{job_id}/result"), 409, "job_state")
    card = server.http.post(f"/v1/jobs/{job_id}/resume").json()
    assert (card["state"], card["error"]) in [("queued", None), ("running", None)]
    server.wait(job_id, "failed")
    assert server.starts(job_id) == 6


@pytest.mark.slow
def test_an_error_of_the_job_is_told_as_any_other(server):
    card = server.wait(server.submit(what="fail", at=1), "failed")
    assert card["error"] == {
        "message": "source.txt line 3: a wrong word",
        "type": "invalid_request_error",
        "code": "invalid_input",
        "param": "source",
    }
    assert card["retries"] == 0
    card = server.wait(server.submit(what="crash"), "failed")
    assert card["error"]["code"] == "internal_error"
    assert "secret" not in card["error"]["message"]
    assert card["log_tail"][-1] == "RuntimeError: secret details"


@pytest.mark.slow
def test_deleting_a_running_job_leaves_no_process_and_no_files(server):
    job_id = server.submit(pause_s=60, what="fork")
    pid = server.pid(job_id)
    waiting = server.submit()
    begin = time.monotonic()
    answer = server.http.delete(f"/v1/jobs/{job_id}").json()
    assert answer == {"id": job_id, "outcome": "cancelled"}
    assert time.monotonic() - begin < 30  # the job would take minutes
    assert is_gone(pid)
    assert {path.name for path in (server.jobs / job_id).iterdir()} == {"request.json", "record.json"}
    assert server.job(job_id)["state"] == "cancelled"
    error_of(server.http.post(f"/v1/jobs/{job_id}/resume"), 409, "job_state")
    assert server.http.delete(f"/v1/jobs/{job_id}").json()["outcome"] == "deleted"
    assert not (server.jobs / job_id).exists()
    server.wait(waiting, "done")


@pytest.mark.slow
def test_children_of_a_job_are_killed_with_it(server):
    job_id = server.submit("a\nb\n", what="fork")
    card = server.wait(job_id, "done")
    pid = int((server.jobs / job_id / "log").read_text().split("child ")[1].split()[0])
    until(lambda: is_gone(pid))
    assert card["state"] == "done"


@pytest.mark.slow
def test_a_log_has_a_bound(server):
    job_id = server.submit(what="chatter", at=1, pause_s=0.5)
    server.wait(job_id, "done")
    assert (server.jobs / job_id / "log").stat().st_size < 1_200_000


@pytest.mark.slow
def test_a_listener_who_comes_back_has_missed_nothing(server):
    job_id = server.submit(pause_s=0.3)
    first = server.events(job_id, most=3)  # and goes away
    last = max(int(event["id"]) for event in first if "id" in event)
    rest = server.events(job_id, after=last)
    ids = [int(event["id"]) for event in first + rest if "id" in event]
    assert ids == [1, 2, 3, 4]
    assert (
        server.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"}).json()["error"][
            "message"
        ]
        == "the header Last-Event-ID is 'x', not the id of an event"
    )


@pytest.mark.slow
def test_no_more_jobs_wait_than_may(server):
    jobs = [server.submit(pause_s=60)] + [server.submit() for _ in range(4)]
    answer = server.upload()
    assert error_of(answer, 429, "overloaded")["message"].startswith(
        "5 jobs wait or run; max_queued_jobs = 5"
    )
    assert answer.headers["retry-after"] == "60"
    server.pid(jobs[0])
    assert [server.job(job_id)["state"] for job_id in jobs] == ["running"] + ["queued"] * 4
    listed = server.http.get("/v1/jobs", params={"state": "queued", "limit": 3}).json()
    assert [card["id"] for card in listed["jobs"]] == jobs[:1:-1]
    listed = server.http.get("/v1/jobs", params={"state": "queued", "after": listed["next"]}).json()
    assert [card["id"] for card in listed["jobs"]] == jobs[1:2]
    for job_id in reversed(jobs):
        assert server.http.delete(f"/v1/jobs/{job_id}").json()["outcome"] == "cancelled"


@pytest.mark.slow
def test_a_killed_server_takes_its_jobs_along_and_the_next_goes_on(data):
    server = JobServer(data)
    expected = server.result(server.wait(server.submit(), "done")["id"])
    job_id, waiting = server.submit(pause_s=1.5), server.submit()
    pid = server.pid(job_id)
    until(lambda: (server.jobs / job_id / "work" / "0").exists())
    server.kill()
    until(lambda: is_gone(pid), seconds=3)  # it would take longer to end by itself
    server = JobServer(data)
    assert server.wait(job_id, "done")["summary"]["starts"] == 2
    assert server.result(job_id) == expected
    assert server.result(server.wait(waiting, "done")["id"]) == expected
    states = [event["data"].get("state") for event in server.events(job_id, after=0)]
    assert states[:4] == ["queued", "running", "queued", "running"]
    server.end()


@pytest.mark.slow
def test_a_server_that_ends_in_order_ends_its_jobs_and_its_listeners_soon(data):
    server = JobServer(data)
    job_id = server.submit(pause_s=60)
    pid = server.pid(job_id)
    heard: list[str] = []

    def listen() -> None:
        with httpx.stream("GET", f"{server.url}/v1/jobs/{job_id}/events", timeout=30) as answer:
            heard.extend(answer.iter_lines())

    listener = threading.Thread(target=listen)
    listener.start()
    until(lambda: heard)
    begin = time.monotonic()
    server.end()
    assert time.monotonic() - begin < 30  # the job would take minutes
    listener.join(60)
    assert "event: state" in heard
    assert is_gone(pid)
    server = JobServer(data)
    assert server.wait(job_id, "running")["retries"] == 0
    server.http.delete(f"/v1/jobs/{job_id}")
    server.end()


@pytest.mark.slow
def test_of_two_servers_one_runs_the_jobs_and_the_other_takes_over(data):
    first, second = JobServer(data), JobServer(data)
    expected = first.result(first.wait(first.submit(), "done")["id"])
    job_id = second.submit(pause_s=0.5)
    pid = second.pid(job_id)
    assert Path(f"/proc/{pid}/stat").read_text().split()[3] == str(first.process.pid)
    long = second.submit(pause_s=60)
    second.wait(job_id, "done")
    second.pid(long)
    assert second.http.delete(f"/v1/jobs/{long}").json()["outcome"] == "cancelled"
    going = second.submit(pause_s=0.5)
    second.pid(going)
    first.kill()
    assert second.wait(going, "done")["summary"]["starts"] == 2
    assert second.result(going) == second.result(job_id) == expected
    second.end()


@pytest.mark.slow
def test_a_full_disk_fails_a_job_that_then_goes_on(data):
    server = JobServer(data, limits={resource.RLIMIT_FSIZE: 16 << 20})
    job_id = server.submit(what="fill", at=2)
    card = server.wait(job_id, "failed")
    assert card["error"]["message"] == "the disk is full; free some space, then resume the job"
    assert card["error"]["code"] == "storage_error"
    too_much = server.http.post(
        "/v1/jobs", files={"source": ("a.txt", bytes(17 << 20))}, data={"kind": "toy"}
    )
    assert (
        error_of(too_much, 500, "storage_error")["message"] == "the upload cannot be stored: File too large"
    )
    assert sorted(path.name for path in server.jobs.iterdir()) == [".lock", ".signals", job_id]
    server.end()
    server = JobServer(data)
    assert server.job(job_id)["state"] == "failed"
    assert server.http.post(f"/v1/jobs/{job_id}/resume").status_code == 200
    assert server.wait(job_id, "done")["summary"]["starts"] == 2
    assert [json.loads(line) for line in server.result(job_id).splitlines()] == COUNTS
    server.end()


@pytest.mark.slow
def test_ended_jobs_expire_when_they_said_they_would(data):
    server = JobServer(data, "--job-retention-s", "3")
    job_id = server.submit()
    card = server.wait(job_id, "done")
    assert card["expires"] == pytest.approx(card["ended"] + 3, abs=0.01)
    until(lambda: server.http.get(f"/v1/jobs/{job_id}").status_code == 404)
    assert f"{job_id} has expired and is deleted" in server.end()


@pytest.mark.slow
def test_a_job_whose_model_is_served_no_more_says_so(data):
    server = JobServer(data)
    blocking, job_id = server.submit(pause_s=60), server.submit()
    server.pid(blocking)
    server.end()
    from embedsvc.model_folder import BUNDLED

    server = JobServer(data, "--model", f"other={BUNDLED}")
    card = server.wait(job_id, "failed")
    assert card["error"]["message"] == "no model 'embedsvc-default'; this server has: other"
    server.end()


@pytest.mark.slow
def test_an_upload_is_stored_with_little_memory(data):
    server = JobServer(data)
    status = Path(f"/proc/{server.process.pid}/status")

    def resident() -> int:
        return int(status.read_text().split("VmRSS:")[1].split()[0]) // 1024

    before, peak = resident(), [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = ("word " * 19 + "\n") * (200 << 20 >> 7)
    answer = server.http.post(
        "/v1/jobs",
        files={"source": ("a.txt", lines.encode())},
        data={"kind": "toy", "options": '{"what":"fail"}'},
    )
    done.set()
    watcher.join()
    assert answer.status_code == 202
    assert peak[0] - before < 60, "MiB"
    server.end()
