"""Documents over HTTP: JSON, lines of any number, export, deletion; by value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedsvc.server.requests import document_lines
from embedsvc.server.requests.document_lines import BatchLimits, document_batches
from embedsvc.server.routes import documents as documents_route
from tests.collections.conftest import DIMENSION, documents, random_texts
from tests.server.conftest import AppClient, error_of
from tests.server.processes import until
from tests.server.tiny_server import base64_of, tiny_client

HELP = "/v1/collections/help/documents"
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    client = tiny_client(tmp_path_factory.mktemp("tiny"), max_batch_texts=8, max_body_bytes=100_000)
    yield client
    client.close()


@pytest.fixture
def fresh(tiny: AppClient) -> Iterator[AppClient]:
    """The server without the collection "help"."""
    yield tiny
    tiny.delete("/v1/collections/help")


def lines(*given: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in given)


def put_lines(client: AppClient, content: Any, path: str = HELP) -> Any:
    return client.request("PUT", path, content=content, headers=LINES)


def exported(client: AppClient, **options: Any) -> list[dict[str, Any]]:
    answer = client.get(HELP, params=options)
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_documents_are_inserted_replaced_found_and_deleted(client):
    path = "/v1/collections/notes/documents"
    documents = [
        {"id": "a/b c", "text": "The cat sleeps on the sofa.", "metadata": {"tags": ["x", None, 1.5]}},
        {"id": "ü", "text": "Der Zug ist heute verspätet.", "language": "DE"},
        {"id": "tab", "text": "one\ttwo", "language": "en"},
    ]
    assert client.put(path, {"documents": documents}).json() == {"inserted": 3, "updated": 0}
    assert client.put(path, {"documents": documents[1:]}).json() == {"inserted": 0, "updated": 2}
    stored = client.get(f"{path}/a%2Fb%20c").json()
    assert stored == {**documents[0], "language": "en"}
    assert client.get(f"{path}/%C3%BC").json()["language"] == "de"
    assert client.get(f"{path}/tab").json()["text"] == "one\ttwo"
    found = client.post("/v1/collections/notes/search", {"query": documents[1]["text"], "top_k": 1}).json()
    assert found["hits"][0]["id"] == "ü"
    assert client.delete(f"{path}/a%2Fb%20c").json() == {"deleted": 1}
    assert error_of(client.get(f"{path}/a%2Fb%20c"), 404, "not_found")["message"] == (
        "collection 'notes' has no document 'a/b c'"
    )
    error_of(client.delete(f"{path}/a%2Fb%20c"), 404, "not_found")
    assert client.delete("/v1/collections/notes").json() == {"deleted": 1}
    error_of(client.get("/v1/collections/notes"), 404, "not_found")


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "documents is []; it must be a list of at least 1"),
        ({}, "documents is an object, not a list"),
        (["a"], "documents[0] is a string, not an object"),
        ([{"id": "a"}], "documents[0].text is missing"),
        ([{"id": 1, "text": "x"}], "documents[0].id is a number, not a string"),
        ([{"id": "a", "text": "x", "txt": 1}], "documents[0]: unknown field 'txt'; did"),
        ([{"id": "a", "text": " "}], "documents[0].text is empty"),
        ([{"id": "a", "text": "a\0"}], "documents[0].text holds a NUL at character 1"),
        ([{"id": "", "text": "x"}], "documents[0].id is empty"),
        ([{"id": "a", "text": "x", "language": "klingonese"}], "documents[0].language: 'kl"),
        ([{"id": "a", "text": "x", "metadata": []}], "documents[0].metadata is a list, not an"),
        ([{"id": "a", "text": "x"}] * 2, "documents[0] and documents[1] have the same id"),
        ([{"id": str(i), "text": "x"} for i in range(9)], "documents has 9 documents; max_b"),
    ],
)
def test_bad_documents_are_explained_and_make_no_collection(tiny, documents, message):
    response = tiny.put("/v1/collections/fresh/documents", {"documents": documents})
    error = error_of(response, 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == "documents"
    error_of(tiny.get("/v1/collections/fresh"), 404, "not_found")


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0] * 15, "documents[1].vector has 15 numbers; the collection has vectors of 16"),
        ([0.0] * DIMENSION, "documents[1].vector is all zeros"),
        ([1.0, "x"], "documents[1].vector[1] is str, not a number"),
        ({"a": 1}, "documents[1].vector is dict; a list of numbers or base64 of float32 expected"),
        ("AAAA", "documents[1].vector has 3 bytes; float32 numbers have 4 each"),
    ],
)
def test_a_bad_vector_is_explained_and_nothing_is_written(fresh, vector, message):
    fresh.put(HELP, {"documents": [{"id": "z", "text": "w1", "language": "en"}]})
    good, bad = ({"id": name, "text": "w1", "language": "en"} for name in "ab")
    given = [good, {**bad, "vector": vector}]
    answer = fresh.put(HELP, {"documents": given})
    code = "dimension_mismatch" if "has vectors of" in message else "invalid_input"
    assert error_of(answer, 400, code)["message"].startswith(message)
    assert fresh.get("/v1/collections/help").json()["documents"] == 1


def test_vectors_as_numbers_and_as_base64_are_the_same_and_come_back(fresh):
    own = np.random.default_rng(0).standard_normal(DIMENSION).astype(np.float32)
    given = [
        {"id": "numbers", "text": "w1", "language": "en", "vector": own.tolist()},
        {"id": "base64", "text": "", "language": "en", "vector": base64_of(own)},
    ]
    assert fresh.put(HELP, {"documents": given}).json() == {"inserted": 2, "updated": 0}
    found = [fresh.get(f"{HELP}/{name}?vector=true").json() for name in ("numbers", "base64")]
    unit = own / np.linalg.norm(own)
    for one in found:
        np.testing.assert_allclose(one["vector"], unit, atol=1e-3)  # stored as float16
    assert found[0]["vector"] == found[1]["vector"]
    assert "vector" not in fresh.get(f"{HELP}/numbers").json()
    hits = fresh.post("/v1/collections/help/search", {"vector": own.tolist()}).json()["hits"]
    assert [hit["score"] for hit in hits] == pytest.approx([1.0, 1.0], abs=1e-3)


def test_a_collection_without_a_model_lives_on_vectors_alone(tiny):
    made = tiny.post("/v1/collections", {"name": "images", "dimension": 3})
    assert (made.status_code, made.json()["model"], made.json()["dimension"]) == (201, None, 3)
    path = "/v1/collections/images/documents"
    rows = {"x": [1, 0, 0], "y": [0, 2, 0], "xy": [1, 1, 0]}
    given = [
        {"id": name, "text": f"picture {name}", "language": "en", "vector": row} for name, row in rows.items()
    ]
    assert put_lines(tiny, lines(*given), path).json() == {"inserted": 3, "updated": 0}
    search = "/v1/collections/images/search"
    hits = tiny.post(search, {"vector": [9, 1, 0], "top_k": 2}).json()["hits"]
    assert [hit["id"] for hit in hits] == ["x", "xy"]
    assert hits[0]["score"] == pytest.approx(9 / np.sqrt(82), abs=1e-3)
    words = tiny.post(search, {"query": "picture y", "mode": "lexical"}).json()["hits"]
    assert words[0]["id"] == "y"
    message = "collection 'images' has no model: documents and queries bring a vector of 3 numbers"
    assert error_of(tiny.post(search, {"query": "x"}), 400, "invalid_input")["message"] == message
    error = error_of(tiny.put(path, {"documents": [{"id": "q", "text": "no"}]}), 400, "invalid_input")
    assert error["message"].startswith("documents[0] has no vector, and the collection has no model")


def test_lines_of_any_number_are_written_in_batches(fresh):
    given = documents(random_texts(50))
    assert put_lines(fresh, lines(*given)).json() == {"inserted": 50, "updated": 0}
    assert fresh.get("/v1/collections/help").json()["generation"] == 7  # of at most 8 documents each
    assert exported(fresh) == given
    again = [{**document, "text": "w1"} for document in given[:9]]
    assert put_lines(fresh, b"\n\n" + lines(*again)[:-1]).json() == {"inserted": 0, "updated": 9}
    assert fresh.get(f"{HELP}/d3").json()["text"] == "w1"
    assert put_lines(fresh, b"").json() == {"inserted": 0, "updated": 0}


def test_of_lines_with_the_same_id_the_last_counts_wherever_batches_end(fresh):
    given = [{"id": "a", "text": f"w{number}", "language": "en"} for number in range(5)]
    assert put_lines(fresh, lines(*given)).json() == {"inserted": 1, "updated": 4}
    assert fresh.get(f"{HELP}/a").json()["text"] == "w4"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"id": "x"', "line 12 is not valid JSON"),
        (b'["x"]', "line 12: the document is a list, not an object"),
        (b'{"id": "x"}', "line 12: text is missing"),
        (b'{"id": "x", "text": "w1", "txt": 1}', "line 12: unknown field 'txt'; did you mean 'text'?"),
        (b'{"id": "x", "text": " "}', "line 12: document.text is empty"),
        (b'{"id": "x", "text": "w1", "language": "zz9"}', "line 12: document.language: 'zz9' is not"),
        (
            b'{"id": "x", "text": "w1", "language": "en", "vector": [1]}',
            "line 12: document.vector has 1 numbers; the coll",
        ),
        (b'{"id": "x", "text": "' + b"w" * 100_001 + b'"}', "line 12 has more than max_body_bytes = 1000"),
    ],
)
def test_a_wrong_line_is_named_with_what_was_written_before_it(fresh, bad, message):
    good = documents(random_texts(20))
    answer = put_lines(fresh, lines(*good[:10]) + b"\n" + bad + b"\n" + lines(*good[10:]))
    code = "dimension_mismatch" if "numbers" in message else "invalid_input"
    error = error_of(answer, 400, code)
    assert error["message"].startswith(message), error["message"]
    assert error["message"].endswith("(8 documents were written before)")  # whole batches
    assert exported(fresh) == good[:8]


def test_a_wrong_first_line_or_name_makes_no_collection(tiny):
    message = error_of(put_lines(tiny, b"{}"), 400, "invalid_input")["message"]
    assert message == "line 1: id is missing (0 documents were written before)"
    error_of(tiny.get("/v1/collections/help"), 404, "not_found")
    error = error_of(put_lines(tiny, b"{}", "/v1/collections/Bad/documents"), 400, "invalid_input")
    assert error["message"].startswith("collection name 'Bad'")


def test_each_batch_is_on_disk_before_the_next_is_read_and_a_lost_client_leaves_whole_batches(fresh):
    """The client sends half of its lines, looks, and goes away in the middle of a line."""
    given = documents(random_texts(20))
    content = lines(*given)
    half = len(content) // 2

    async def run() -> tuple[int, list[dict[str, Any]]]:
        received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "PUT",
            "path": HELP,
            "headers": [(b"content-type", b"application/x-ndjson")],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("app", 80),
            "client": ("here", 1),
        }
        task = asyncio.create_task(fresh.app(scope, received.get, send))
        await received.put({"type": "http.request", "body": content[:half], "more_body": True})
        seen = 0
        while not seen:  # what has been sent so far is searched for, while the body is still open
            await asyncio.sleep(0.01)
            answer = await fresh.http.get("/v1/collections/help")
            seen = answer.json().get("documents", 0)
        await received.put({"type": "http.request", "body": content[half:-30], "more_body": True})
        await received.put({"type": "http.disconnect"})
        await asyncio.wait_for(task, 60)
        return seen, sent

    seen, sent = fresh.run(run())
    assert seen == 8
    assert sent[0]["status"] == 499
    assert exported(fresh) == given[:16]


def test_memory_is_bounded_by_a_batch(monkeypatch):
    monkeypatch.setattr(document_lines, "_BATCH_BYTES", 300)

    async def sizes(given: bytes, limits: BatchLimits) -> list[int]:
        async def chunks():
            for at in range(0, len(given), 7):
                yield given[at : at + 7]

        return [len(batch.documents) async for batch in document_batches(chunks(), limits)]

    short = lines(*({"id": str(number), "text": "w1"} for number in range(10)))
    assert asyncio.run(sizes(short, BatchLimits(1000, documents=4))) == [4, 4, 2]
    long = lines(*({"id": str(number), "text": "w" * 200, "language": "en"} for number in range(5)))
    assert asyncio.run(sizes(long, BatchLimits(1000, documents=4))) == [2, 2, 1]


def test_an_export_is_what_put_takes(fresh, monkeypatch):
    monkeypatch.setattr(documents_route, "_EXPORTED_AT_ONCE", 3)
    big = {"id": "big", "text": "w1", "language": "en", "metadata": {"n": 2**53, "tags": ["ä", None]}}
    given = [*documents(random_texts(11)), big]
    put_lines(fresh, lines(*given))
    assert exported(fresh) == given
    assert [row["id"] for row in exported(fresh, languages="de,swa")] == [
        row["id"] for row in given if row["language"] in ("de", "sw")
    ]
    assert [row["id"] for row in exported(fresh, filter='{"n": {"$lt": 3}}')] == ["d0", "d1", "d2"]
    content = fresh.get(HELP, params={"vectors": "true"}).content
    assert b'"vector"' in content
    vector = fresh.get(f"{HELP}/d5?vector=true").json()["vector"]
    fresh.delete("/v1/collections/help")
    assert put_lines(fresh, content).json() == {"inserted": 12, "updated": 0}
    assert fresh.get(f"{HELP}/d5?vector=true").json()["vector"] == pytest.approx(vector, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "{"}, "filter is not valid JSON"),
        ({"filter": "[1]"}, "filter must be a JSON object"),
        ({"languages": "zz9"}, "'zz9' is not a language code"),
        ({"vectors": "perhaps"}, "vectors is 'perhaps'"),
        ({"limit": "3"}, "unknown field 'limit'"),
    ],
)
def test_a_wrong_export_is_refused_at_once(fresh, options, message):
    fresh.put(HELP, {"documents": documents(["w1"])})
    error = error_of(fresh.get(HELP, params=options), 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]


def test_an_export_is_of_one_moment_and_a_reader_that_goes_ends_its_transaction(fresh, monkeypatch):
    monkeypatch.setattr(documents_route, "_EXPORTED_AT_ONCE", 2)
    given = documents(random_texts(8))
    put_lines(fresh, lines(*given))
    state = fresh.app.state.server
    store = state.collections.get("help").store
    closed: list[object] = []
    close = documents_route._Export.close

    def noted(export):
        close(export)
        closed.append(export)

    monkeypatch.setattr(documents_route._Export, "close", noted)

    async def run() -> list[bytes]:
        from embedsvc.collections.transfer import export_lines

        export = documents_route._Export(export_lines(state.collections.get("help")))
        pieces = documents_route._pieces(state, export, export.piece())
        first = await anext(pieces)
        await fresh.http.post(f"{HELP}/delete", json={"ids": ["d2", "d3", "d6"]})
        second = await anext(pieces)
        await pieces.aclose()
        while not closed:
            await asyncio.sleep(0.01)
        return [first, second]

    found = b"".join(fresh.run(run())).splitlines()
    assert [json.loads(line) for line in found] == given[:4]  # deleted ones too
    with store.writing() as writer:  # and nobody reads any more: the log can be emptied
        assert writer.count() == 5
    with store.reading() as view:
        view.connection.execute("ROLLBACK")
        assert view.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_a_client_that_does_not_read_its_export_is_cut_off_and_the_log_can_be_emptied(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(documents_route, "_EXPORTED_AT_ONCE", 2)
    client = tiny_client(tmp_path, request_timeout_s=1.5)
    put_lines(client, lines(*documents(random_texts(8))))
    store = client.app.state.server.collections.get("help").store
    taken: list[bytes] = []
    cancelled: list[bool] = []

    async def send(message: dict[str, Any]) -> None:
        if len(taken) == 2:
            cancelled.append(True)
            await asyncio.Event().wait()  # the socket is full
        if body := message.get("body"):
            taken.append(body)

    async def run() -> None:
        scope = {
            "type": "http",
            "asgi": {"spec_version": "2.4"},
            "method": "GET",
            "path": HELP,
            "headers": [],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("app", 80),
            "client": ("here", 1),
        }
        received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        await received.put({"type": "http.request", "body": b"", "more_body": False})
        await asyncio.wait_for(client.app(scope, received.get, send), 60)

    def reader_is_gone() -> bool:
        with store.reading() as view:
            view.connection.execute("ROLLBACK")
            return bool(view.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    client.run(run())
    assert cancelled == [True]
    assert "an export was ended: its client took nothing for 1.5 s" in caplog.text
    assert len(b"".join(taken).splitlines()) == 4
    client.put(HELP, {"documents": documents(["w1"], first=100)})
    until(reader_is_gone)
    client.close()


def test_large_documents_are_exported_in_pieces_that_can_be_taken_in_time(fresh, monkeypatch):
    monkeypatch.setattr(documents_route, "_SENT_AT_ONCE", 100)
    given = documents(["w1 " * 90, "ä" * 333, "w2"])
    put_lines(fresh, lines(*given))
    assert exported(fresh) == given
    export = documents_route._Export(iter(["x" * 250]))
    export.close = lambda: None

    async def sizes() -> list[int]:
        return [
            len(part)
            async for part in documents_route._pieces(fresh.app.state.server, export, export.piece())
        ]

    assert fresh.run(sizes()) == [100, 100, 51]


def test_documents_are_deleted_by_filter_by_language_and_by_id(fresh):
    put_lines(fresh, lines(*documents(random_texts(20))))

    def deleted(**body: Any) -> int:
        count: int = fresh.post(f"{HELP}/delete", body).json()["deleted"]
        return count

    assert deleted(filter={"n": {"$gte": 15}}) == 5
    assert deleted(languages=["de"], filter={"n": {"$lt": 5}}) == 2
    assert deleted(ids=["d0", "d19", "nobody"]) == 1
    assert [row["id"] for row in exported(fresh)] == [f"d{n}" for n in range(15) if n not in (0, 1, 4)]
    for body, message in (
        ({}, "give a filter or languages; to delete all, delete the collection"),
        ({"ids": ["a"], "filter": {"n": 1}}, "give ids, or filter and languages, not both"),
        ({"ids": "a"}, "ids is a string, not a list"),
        ({"ids": [3]}, "ids[0] is a number, not a string"),
        ({"filter": {"m": 1}}, "filter: no document has a field 'm'; known: n"),
        ({"languages": ["zz9"]}, "'zz9' is not a language code"),
    ):
        error = error_of(fresh.post(f"{HELP}/delete", body), 400, "invalid_input")
        assert error["message"].startswith(message), error["message"]
    assert len(exported(fresh)) == 12
