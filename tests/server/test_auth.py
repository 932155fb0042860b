"""API keys: who is let in, to what, how often; and origins of pages."""

from __future__ import annotations

import json

import pytest
from fastapi import Request

from embedsvc.api_keys import SCOPES, KeyLimits, create_key, read_keys, revoke_key
from embedsvc.errors import NotFoundError, StorageError
from embedsvc.server import auth
from embedsvc.server.app import create_app
from embedsvc.server.auth import Allowance, Caller, charge_texts, scope_needed
from embedsvc.server.errors import RateLimitedError
from embedsvc.settings import Settings
from tests.scheduling.toy_runtime import toy_encoder
from tests.server.conftest import error_of


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def keys_file(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "_CHECK_S", 0.0)
    return tmp_path / "keys.json"


@pytest.fixture
def secrets(keys_file):
    return {scope: create_key(keys_file, f"the-{scope}", KeyLimits(scope)) for scope in SCOPES}


@pytest.fixture
def keyed(make_client, tmp_path, keys_file, secrets):  # noqa: ARG001 - they are in the file
    return make_client(toy_encoder(tmp_path), keys_file=keys_file)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("GET", "/", None),
        ("GET", "/docs", None),
        ("GET", "/docs/files/swagger-ui.css", None),
        ("GET", "/openapi.json", None),
        ("GET", "/metrics", "read"),
        ("GET", "/v1/models", "read"),
        ("GET", "/docsx", "read"),
        ("POST", "/", "read"),
        ("POST", "/v1/embeddings", "read"),
        ("POST", "/v1/bitext/mine", "read"),
        ("POST", "/v1/bitext/score", "read"),
        ("POST", "/rerank", "read"),
        ("POST", "/v2/rerank", "read"),
        ("POST", "/v1/collections/a/search", "read"),
        ("GET", "/v1/collections/a/documents/b", "read"),
        ("GET", "/v1/collections", "read"),
        ("GET", "/v1/collections/a", "read"),
        ("GET", "/v1/collections/a/documents", "read"),
        ("POST", "/v1/collections", "write"),
        ("POST", "/v1/collections/a/documents/delete", "write"),
        ("POST", "/v1/collections/a/verify", "admin"),
        ("POST", "/v1/collections/documents/search", "read"),
        ("PUT", "/v1/collections/a/documents", "write"),
        ("DELETE", "/v1/collections/a/documents/b/c", "write"),
        ("DELETE", "/v1/collections/a", "admin"),
        ("DELETE", "/v1/collections/documents", "admin"),
        ("DELETE", "/whatever", "admin"),
    ],
)
def test_the_scope_of_every_route(method, path, needed):
    assert scope_needed(method, path) == needed


def test_without_a_key_or_with_a_wrong_one_nothing_is_done(keyed, secrets):
    for headers in (
        {},
        bearer("embedsvc_wrong"),
        bearer(""),
        {"Authorization": f"Basic {secrets['admin']}"},
        {"x-api-key": secrets["admin"] + "x"},
        {"Authorization": "Bearer ключ".encode()},
    ):
        answer = keyed.request("POST", "/v1/embeddings", json={"input": "a"}, headers=headers)
        error = error_of(answer, 401, "invalid_api_key")
        assert error["type"] == "invalid_request_error"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "wrong" not in answer.text
        error_of(keyed.get("/metrics", headers=headers), 401, "invalid_api_key")
        error_of(keyed.get("/no/such/route", headers=headers), 401, "invalid_api_key")
        assert keyed.get("/health", headers=headers).status_code == 200
        assert keyed.get("/ready", headers=headers).status_code == 200
    for line in keyed.get("/metrics", headers=bearer(secrets["read"])).text.splitlines():
        if line.startswith("embedsvc_texts_total"):
            assert line.endswith((" 0.0", " 1.0")), line  # one: the probe of /ready


def test_either_header_lets_in(keyed, secrets):
    for headers in (
        bearer(secrets["read"]),
        {"authorization": f"bearer  {secrets['read']} "},
        {"x-api-key": secrets["read"]},
    ):
        answer = keyed.request("POST", "/v1/embeddings", json={"input": "a"}, headers=headers)
        assert answer.status_code == 200, answer.text


def test_scopes_decide_what_a_key_may_do(keyed, secrets):
    bodies = {
        "/v1/collections": {"name": "c"},
        "/v1/collections/c/documents": {"documents": [{"id": "a", "text": "abc", "language": "en"}]},
        "/v1/collections/c/search": {"query": "abc"},
        "/v1/collections/c/documents/delete": {"ids": ["b"]},
    }
    calls = [
        ("POST", "/v1/collections", "write"),
        ("PUT", "/v1/collections/c/documents", "write"),
        ("POST", "/v1/collections/c/search", "read"),
        ("POST", "/v1/collections/c/verify", "admin"),
        ("POST", "/v1/collections/c/documents/delete", "write"),
        ("DELETE", "/v1/collections/c/documents/a", "write"),
        ("DELETE", "/v1/collections/c", "admin"),
    ]
    for method, path, needed in calls:
        body = {"json": bodies[path]} if path in bodies else {}
        for scope in SCOPES:
            answer = keyed.request(method, path, headers=bearer(secrets[scope]), **body)
            if SCOPES.index(scope) < SCOPES.index(needed):
                message = error_of(answer, 403, "forbidden")["message"]
                assert message == f"the key 'the-{scope}' has the scope {scope}; this needs {needed}"
            else:
                assert answer.status_code in (200, 201), answer.text
                break


def test_a_refusal_does_not_wait_for_the_body(keyed):
    async def refused():
        sent = []

        async def receive():
            raise AssertionError("the body was read")

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/embeddings",
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        await keyed.app(scope, receive, send)
        return sent

    assert keyed.run(refused())[0]["status"] == 401


def test_a_key_over_its_rate_gets_429_and_others_do_not(make_client, tmp_path, keys_file):
    slow = create_key(keys_file, "slow", KeyLimits(requests_per_minute=2))
    free = create_key(keys_file, "free", KeyLimits())
    client = make_client(toy_encoder(tmp_path), keys_file=keys_file)
    post = {"content": b"not json", "headers": {**bearer(slow), "content-type": "application/json"}}
    for _ in range(2):
        error_of(client.request("POST", "/v1/embeddings", **post), 400, "invalid_input")
    answer = client.request("POST", "/v1/embeddings", **post)
    error = error_of(answer, 429, "rate_limited")
    assert error["message"].startswith(
        "the key 'slow' has used up its requests_per_minute = 2; try again in "
    )
    assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert client.get("/v1/models", headers=bearer(free)).status_code == 200


def test_an_allowance_refills_steadily_and_lends_what_it_never_could_hold():
    allowance = Allowance(60, now=0.0)
    assert [allowance.take(1, 0.0) for _ in range(60)] == [0.0] * 60
    assert allowance.take(1, 0.0) == pytest.approx(1.0)
    assert allowance.take(1, 0.25) == pytest.approx(0.75)
    assert allowance.take(1, 1.0) == 0.0
    assert allowance.take(1, 1.5) == pytest.approx(0.5)
    allowance = Allowance(60, now=0.0)
    assert allowance.take(120, 0.0) == 0.0  # more than a minute's worth: owed afterwards
    assert allowance.take(1, 0.0) == pytest.approx(61.0)
    assert allowance.take(1, 1000.0) == 0.0
    assert allowance.take(60, 1000.0) == pytest.approx(1.0)  # it never holds more than a minute's worth


def test_texts_are_charged_to_the_key(make_client, tmp_path, keys_file):
    secret = create_key(keys_file, "k", KeyLimits(texts_per_minute=10))
    client = make_client(toy_encoder(tmp_path), keys_file=keys_file)

    @client.app.get("/charge/{count}")
    async def charge(count: int, request: Request) -> str:
        charge_texts(request, count)
        return request.state.client

    def charged(count):
        return client.get(f"/charge/{count}", headers=bearer(secret))

    assert charged(10).json() == "k"
    assert charged(0).status_code == 200
    answer = charged(1)
    assert "texts_per_minute = 10" in error_of(answer, 429, "rate_limited")["message"]
    assert 5 <= int(answer.headers["retry-after"]) <= 6


def test_without_keys_the_client_is_its_address_and_nothing_is_charged(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path))

    @client.app.get("/who")
    async def who(request: Request) -> str:
        charge_texts(request, 10**9)
        return request.state.client

    assert client.get("/who", headers=bearer("anything")).json() == "127.0.0.1"


def test_revoked_and_new_keys_count_at_once_and_rates_go_on(make_client, tmp_path, keys_file):
    slow = create_key(keys_file, "slow", KeyLimits(requests_per_minute=2))
    gone = create_key(keys_file, "gone", KeyLimits())
    client = make_client(toy_encoder(tmp_path), keys_file=keys_file)

    def status(secret):
        return client.get("/v1/models", headers=bearer(secret)).status_code

    assert [status(slow), status(gone)] == [200, 200]
    revoke_key(keys_file, "gone")
    new = create_key(keys_file, "new", KeyLimits())
    assert [status(gone), status(new)] == [401, 200]
    assert [status(slow), status(slow)] == [200, 429]  # reading the file again gave nothing away


def test_a_file_damaged_later_leaves_the_keys_and_is_logged_once(
    make_client, tmp_path, keys_file, secrets, caplog
):
    client = make_client(toy_encoder(tmp_path), keys_file=keys_file)
    keys_file.write_text("{")
    for _ in range(3):
        assert client.get("/v1/models", headers=bearer(secrets["read"])).status_code == 200
    keys_file.unlink()
    assert client.get("/v1/models", headers=bearer(secrets["read"])).status_code == 200
    messages = [record.message for record in caplog.records if record.name == "embedsvc.server.auth"]
    assert len(messages) == 2
    assert messages[0].startswith(f"keys_file {keys_file} is damaged: ")
    assert messages[1].startswith(f"no keys_file at {keys_file}; ")
    create_key(keys_file, "other", KeyLimits())
    assert client.get("/v1/models", headers=bearer(secrets["read"])).status_code == 401


def test_a_file_that_is_missing_or_damaged_stops_the_start(tmp_path):
    file = tmp_path / "keys.json"
    with pytest.raises(NotFoundError, match=r"^no keys_file at "):
        create_app(Settings(keys_file=file))
    file.write_text(json.dumps({"keys": 3}))
    with pytest.raises(StorageError, match="is damaged: keys: "):
        create_app(Settings(keys_file=file))


def test_the_api_description_asks_for_the_key_where_one_is_needed(keyed):
    described = keyed.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    assert described["paths"]["/v1/embeddings"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in described["paths"]["/health"]["get"]


def test_a_caller_is_charged_by_the_clock_of_its_key(keys_file):
    create_key(keys_file, "k", KeyLimits(requests_per_minute=1))
    (key,) = read_keys(keys_file).keys
    caller = Caller(key, now=0.0)
    caller.charge_request(0.0)
    with pytest.raises(RateLimitedError) as caught:
        caller.charge_request(0.5)
    assert caught.value.retry_after == 60
    caller.charge_request(60.0)
    caller.charge_texts(10**9, 60.0)


PREFLIGHT = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_pages_of_other_origins_are_kept_out_by_default(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path))
    error_of(client.request("OPTIONS", "/v1/embeddings", headers=PREFLIGHT), 405, "method_not_allowed")
    answer = client.get("/v1/models", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_the_given_origins_may_call_also_with_keys(make_client, tmp_path, keys_file, secrets):
    client = make_client(
        toy_encoder(tmp_path), keys_file=keys_file, cors_origins=("https://app.example", "http://b:1")
    )
    preflight = client.request("OPTIONS", "/v1/embeddings", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = client.get("/v1/models", headers={"Origin": "http://b:1"})
    assert refused.status_code == 401  # and the page may see why
    assert refused.headers["access-control-allow-origin"] == "http://b:1"
    other = client.get("/v1/models", headers={"Origin": "https://evil.example", **bearer(secrets["read"])})
    assert "access-control-allow-origin" not in other.headers


def test_documents_and_queries_that_a_model_encodes_are_charged(make_client, tmp_path, keys_file):
    secret = create_key(keys_file, "k", KeyLimits("write", texts_per_minute=3))
    client = make_client(toy_encoder(tmp_path), keys_file=keys_file)
    documents = [{"id": name, "text": name, "language": "en"} for name in ("a", "b")]
    own = {"id": "c", "text": "c", "language": "en", "vector": [1, 2, 3, 4]}

    def call(method, verb, body):
        path = f"/v1/collections/c/{verb}"
        return client.request(method, path, json=body, headers=bearer(secret))

    assert call("PUT", "documents", {"documents": documents}).status_code == 200
    assert call("PUT", "documents", {"documents": [own]}).status_code == 200  # encoded by the caller
    assert call("POST", "search", {"vector": [1, 2, 3, 4]}).status_code == 200
    assert call("POST", "search", {"query": "a"}).status_code == 200
    assert (
        "texts_per_minute = 3"
        in error_of(call("POST", "search", {"query": "a"}), 429, "rate_limited")["message"]
    )
    assert call("POST", "search", {"query": "a", "mode": "lexical"}).status_code == 200
