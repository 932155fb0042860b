"""Requests about jobs that are wrong, and who may make them. No job runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedsvc.encoder import Encoder
from embedsvc.jobs.runner import JobRunner
from embedsvc.server.auth import scope_needed
from tests.server.conftest import AppClient, error_of

SIDES = {"source": ("de.txt", b"Es regnet.\n"), "target": ("en.txt", b"It is raining.\n")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    (root / "de.txt").write_text("Es regnet.\n")
    (root / "en.txt").write_text("It is raining.\n")
    (root.parent / "secret.txt").write_text("secret\n")
    (root / "link").symlink_to(root.parent / "secret.txt")
    return root


@pytest.fixture(scope="module")
def client(encoder: Encoder, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    from embedsvc.settings import Settings

    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        jobs_root=texts,
        max_upload_bytes=100_000,
        max_body_bytes=20_000,
        max_queued_jobs=1000,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobRunner, "_start_next", lambda _: None)  # they wait for ever
        client = AppClient(settings, encoder)
        yield client
        client.close()


def post(client: AppClient, **options: Any) -> httpx.Response:
    return client.request("POST", "/v1/jobs", **options)


def jobs_folder(client: AppClient) -> Path:
    folder: Path = client.app.state.server.jobs.store.folder
    return folder


def test_an_upload_and_paths_make_the_same_job(client, texts):
    options = {"src_lang": "de", "tgt_lang": "en", "k": 2}
    form = {"options": json.dumps(options), "kind": "mine", "model": ""}
    uploaded = post(client, files=SIDES, data=form).json()
    body = {"source": "de.txt", "target": ["en.txt"], "options": options}
    named = post(client, json=body).json()
    for told in (uploaded, named):
        assert (told["kind"], told["state"], told["options"]["k"]) == ("mine", "queued", 2)
    assert uploaded["options"] == named["options"]
    store = client.app.state.server.jobs.store
    assert store.request(named["id"]).inputs == {
        "source": (str(texts / "de.txt"),),
        "target": (str(texts / "en.txt"),),
    }
    stored = store.request(uploaded["id"]).inputs["source"]
    assert (store.path(uploaded["id"]) / stored[0]).read_bytes() == b"Es regnet.\n"
    assert client.get("/v1/jobs").json()["jobs"][0]["id"] == named["id"]


@pytest.mark.parametrize(
    ("files", "form", "message", "param"),
    [
        (
            {"source": SIDES["source"]},
            {},
            "target or target_vectors is missing: files of sentences",
            "target",
        ),
        (
            {},
            {"kind": "mine"},
            "source or source_vectors is missing: files of",
            "source",
        ),
        (SIDES, {"kind": "mime"}, "kind is 'mime'; known: mine, score, align", "kind"),
        (SIDES, {"options": "{"}, "options is not valid JSON: ", "options"),
        (SIDES, {"options": "[]"}, "options is not a JSON object", "options"),
        (
            SIDES,
            {"options": '{"margn": "ratio"}'},
            "no option is called 'margn'; the nearest is 'margin'",
            "options",
        ),
        (SIDES, {"options": '{"k": 0}'}, "k = 0; it must be at least 1", "k"),
        (SIDES, {"options": '{"threshold": "high"}'}, "options: threshold is 'high'", "options"),
        (SIDES, {"opions": "{}"}, "the form has a part 'opions'; known: ", "form"),
        (
            {**SIDES, "pairs": ("p.tsv", b"x")},
            {},
            "this kind of job takes no pairs; ",
            "pairs",
        ),
    ],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(client, files, form, message, param):
    before = sorted(jobs_folder(client).iterdir())
    parts = [*((name, (None, value.encode())) for name, value in form.items()), *files.items()]
    error = error_of(post(client, files=parts), 400, "invalid_input")
    assert error["message"].startswith(message)
    assert error["param"] == param
    assert sorted(jobs_folder(client).iterdir()) == before


def test_one_file_where_one_is_wanted(client):
    parts = [*SIDES.items(), ("dev", ("a.tsv", b"x")), ("dev", ("b.tsv", b"x"))]
    assert error_of(post(client, files=parts), 400, "invalid_input")["message"] == "dev is one file; 2 came"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"source": "../secret.txt", "target": "en.txt"},
            "source is '../secret.txt', which leads out",
        ),
        ({"source": "link", "target": "en.txt"}, "source is 'link', which leads out of the jobs_root"),
        ({"source": "de.txt", "target": ["en.txt", "/etc/passwd"]}, "target is '/etc/passwd'; a path below"),
        ({"source": "de.txt", "target": "."}, "target is '.', which is not a file"),
        ({"source": "de.txt"}, "target or target_vectors is missing"),
        ({"source": [], "target": "en.txt"}, "source"),
        (
            {"source": "de.txt", "target": "en.txt", "option": {}},
            "unknown field 'option'; did you mean",
        ),
        ({"source": "de.txt", "target": "en.txt", "options": {"kk": 1}}, "no option is called 'kk'"),
    ],
)
def test_wrong_paths_are_refused(client, body, message):
    assert error_of(post(client, json=body), 400, "invalid_input")["message"].startswith(message)


def test_a_path_without_a_file_is_not_found(client):
    error = error_of(post(client, json={"source": "fr.txt", "target": "en.txt"}), 404, "not_found")
    assert error["message"] == "source: no file 'fr.txt' below the jobs_root"


def test_an_unknown_model_is_refused(client):
    body = {"source": "de.txt", "target": "en.txt", "model": "gpt"}
    error_of(post(client, json=body), 404, "model_not_found")
    parts = [("model", (None, b"gpt")), *SIDES.items()]
    error_of(post(client, files=parts), 404, "model_not_found")


def test_paths_need_a_jobs_root(make_client, encoder):
    client = make_client(encoder)
    error = error_of(post(client, json={"source": "a", "target": "b"}), 400, "invalid_input")
    assert "no jobs_root" in error["message"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "multipart/mixed; boundary=b"]
)
def test_another_media_type_is_refused(client, content_type):
    error = error_of(post(client, content=b"x", headers={"Content-Type": content_type}), 400, "invalid_input")
    assert error["message"] == "send multipart/form-data with files, or application/json with paths"


def test_too_large_an_upload_is_refused_by_what_it_declares_and_by_what_comes(client):
    large = {**SIDES, "source": ("de.txt", bytes(100_001))}
    declared = post(client, files=large)
    assert error_of(declared, 413, "body_too_large")["message"] == (
        "the upload has more than max_upload_bytes = 100000 bytes"
    )
    assert declared.headers["connection"] == "close"
    request = httpx.Request("POST", "http://app/v1/jobs", files=large)
    content = request.read()

    async def pieces() -> Any:
        for start in range(0, len(content), 5000):
            yield content[start : start + 5000]

    headers = {"Content-Type": request.headers["content-type"]}
    error_of(post(client, content=pieces(), headers=headers), 413, "body_too_large")
    assert not list(jobs_folder(client).glob(".draft-*"))


def test_an_upload_may_be_larger_than_a_body(client):
    parts = {**SIDES, "source": ("de.txt", b"Es regnet.\n" * 5000)}  # 55 kB; max_body_bytes is 20 kB
    assert post(client, files=parts).status_code == 202
    error_of(post(client, json={"source": ["x" * 21_000]}), 413, "body_too_large")
    options = [("options", (None, b" " * 20_001))]
    told = error_of(post(client, files=[*options, *SIDES.items()]), 413, "body_too_large")
    assert told["message"] == "options has more than max_body_bytes = 20000 bytes"


def test_a_waiting_job_has_no_result_and_can_be_cancelled(client):
    job_id = post(client, files=SIDES).json()["id"]
    error = error_of(client.get(f"/v1/jobs/{job_id}/result"), 409, "job_state")
    assert error["message"] == f"{job_id} is queued; there is a result when a job is done"
    error_of(client.request("POST", f"/v1/jobs/{job_id}/resume"), 409, "job_state")
    assert client.delete(f"/v1/jobs/{job_id}").json()["outcome"] == "cancelled"
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job_id}").json()["outcome"] == "deleted"


def test_a_damaged_job_keeps_nobody_from_making_another(client):
    damaged = post(client, files=SIDES).json()["id"]
    (jobs_folder(client) / damaged / "record.json").write_text("{")
    assert post(client, files=SIDES).status_code == 202
    error_of(client.get(f"/v1/jobs/{damaged}"), 500, "storage_error")


@pytest.mark.parametrize("path", ["", "/events", "/result"])
def test_unknown_jobs_are_not_found(client, path):
    error_of(client.get(f"/v1/jobs/job-0{path}"), 404, "not_found")
    error_of(client.get(f"/v1/jobs/..%2f..%2fetc{path}"), 404, "route_not_found")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit is '0'"),
        ("limit=x", "limit is"),
        ("stat=done", "unknown field 'stat'"),
        ("state=gone", "state"),
    ],
)
def test_a_wrong_query_is_refused(client, query, message):
    assert error_of(client.get(f"/v1/jobs?{query}"), 400, "invalid_input")["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/jobs", "write"),
        ("GET", "/v1/jobs", "read"),
        ("GET", "/v1/jobs/job-1/result", "read"),
        ("GET", "/v1/jobs/job-1/events", "read"),
        ("POST", "/v1/jobs/job-1/resume", "write"),
        ("DELETE", "/v1/jobs/job-1", "write"),
        ("DELETE", "/v1/jobsx", "admin"),
    ],
)
def test_reading_jobs_needs_less_than_making_and_deleting_them(method, path, scope):
    assert scope_needed(method, path) == scope


def test_a_key_that_may_read_cannot_upload(make_client: Callable[..., AppClient], encoder, tmp_path):
    from embedsvc.api_keys import KeyLimits, create_key

    keys = tmp_path / "keys.json"
    secrets = {scope: create_key(keys, scope, KeyLimits(scope)) for scope in ("read", "write")}
    client = make_client(encoder, keys_file=keys)

    def upload(scope: str) -> httpx.Response:
        return post(client, files=SIDES, headers={"Authorization": f"Bearer {secrets[scope]}"})

    error_of(post(client, files=SIDES), 401, "invalid_api_key")
    error_of(upload("read"), 403, "forbidden")
    job = upload("write").json()
    store = client.app.state.server.jobs.store
    assert store.request(job["id"]).client == "write"


def test_the_api_page_shows_the_form(client):
    operation = client.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form["source"]["items"] == {"type": "string", "format": "binary"}
    assert form["dev"]["format"] == "binary"
    assert {"kind", "model", "options", "target"} < set(form)
    assert "application/json" in operation["requestBody"]["content"]
    assert operation["responses"]["202"]
