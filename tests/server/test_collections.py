from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsvc.collections.collection import Collection
from embedsvc.server.sample import SAMPLE_FILE
from tests.scheduling.toy_runtime import toy_encoder
from tests.server.conftest import error_of

SAMPLE = [json.loads(line) for line in SAMPLE_FILE.read_text(encoding="utf-8").splitlines()]
SEARCH = "/v1/collections/sample/search"


def test_the_sample_is_loaded(client):
    card = client.get("/v1/collections/sample").json()
    assert card["documents"] == len(SAMPLE)
    assert card["languages"]["de"] == sum(row["language"] == "de" for row in SAMPLE)
    assert card["problem"] is None
    assert card in client.get("/v1/collections").json()["collections"]
    found = client.get(f"/v1/collections/sample/documents/{SAMPLE[3]['id']}").json()
    assert found == {
        "id": SAMPLE[3]["id"],
        "text": SAMPLE[3]["text"],
        "language": SAMPLE[3]["language"],
        "metadata": {"topic": SAMPLE[3]["topic"]},
    }


def test_search_gives_what_the_collection_gives(client):
    collection = client.app.state.server.collections.get("sample")
    query = "Where can I borrow books?"
    for options in (
        {},
        {"top_k": 3},
        {"top_k": 5, "languages": ["de", "pt-BR"], "offset": 2},
        {"min_score": 0.2, "top_k": 100},
    ):
        hits = client.post(SEARCH, {"query": query, **options}).json()["hits"]
        expected = collection.search(query, **options)
        assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
        assert hits[0] == {**vars(expected[0]), "score": hits[0]["score"]}


def test_the_query_prompt_is_used(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    documents = [{"id": text, "text": text, "language": "en"} for text in ("q:abc", "abc")]
    client.put("/v1/collections/c/documents", {"documents": documents})
    hits = client.post("/v1/collections/c/search", {"query": "abc"}).json()["hits"]
    assert hits[0]["id"] == "q:abc"
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)
    error = error_of(client.post("/v1/collections/c/search", {"query": "x" * 20}), 400, "text_too_long")
    assert error["message"].startswith("query has 22 tokens; the limit is 12")
    assert error["param"] == "query"


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
        ([{"id": str(i), "text": "x"} for i in range(65)], "documents has 65 documents; max_b"),
    ],
)
def test_bad_documents_are_explained_and_make_no_collection(client, documents, message):
    response = client.put("/v1/collections/fresh/documents", {"documents": documents})
    error = error_of(response, 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == "documents"
    error_of(client.get("/v1/collections/fresh"), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "query is missing"),
        ({"query": ""}, "query is empty"),
        ({"query": " \n"}, "query is empty"),
        ({"query": None}, "query is null, not a string"),
        ({"query": ["a"]}, "query is a list, not a string"),
        ({"query": "a", "top_k": 0}, "top_k is 0; an integer from 1 to"),
        ({"query": "a", "top_k": 10**9}, "top_k is 1000000000; an integer from 1 to"),
        ({"query": "a", "top_k": "5"}, "top_k is a string, not a whole number"),
        ({"query": "a", "offset": -1}, "offset is -1; an integer from 0 to"),
        ({"query": "a", "languages": "de"}, "languages is a string, not a list"),
        ({"query": "a", "languages": []}, "languages is an empty list"),
        ({"query": "a", "languages": ["zz9"]}, "'zz9' is not a language code"),
        ({"query": "a", "min_score": "x"}, "min_score is a string, not a number"),
        ({"query": "a", "topk": 3}, "unknown field 'topk'; did you mean 'top_k'?"),
    ],
)
def test_bad_searches_are_explained(client, body, message):
    error = error_of(client.post(SEARCH, body), 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]


def test_a_lone_surrogate_in_a_query_is_explained(client):
    headers = {"Content-Type": "application/json"}
    response = client.request("POST", SEARCH, content=b'{"query": "\\ud800"}', headers=headers)
    assert "query holds a lone surrogate" in error_of(response, 400, "invalid_input")["message"]
    response = client.request("POST", SEARCH, content=b'{"query": "a", "min_score": NaN}', headers=headers)
    assert error_of(response, 400, "invalid_input")["param"] == "min_score"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_collections_name_those_that_there_are(client, method):
    error = error_of(client.request(method, "/v1/collections/nope"), 404, "not_found")
    assert error["message"].startswith("no collection 'nope'; known: ")
    assert "sample" in error["message"]
    error_of(client.request(method, "/v1/collections/Bad%20Name"), 400, "invalid_input")


def test_a_collection_of_another_model_is_listed_with_its_problem(make_client, tmp_path, encoder):
    folder = tmp_path / "data" / "collections" / "foreign"
    with Collection(folder, encoder) as other:
        other.upsert([{"id": "a", "text": "hello", "language": "en"}])
    model = tmp_path / "model"
    model.mkdir()
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "documents.sqlite").write_bytes(b"no database" * 100)
    client = make_client(toy_encoder(model))
    broken, foreign = client.get("/v1/collections").json()["collections"]
    assert (foreign["documents"], foreign["model"]) == (1, "embedsvc-default")
    assert "was made with model 'embedsvc-default'" in foreign["problem"]
    assert "not a database" in broken["problem"]
    error_of(client.post("/v1/collections/foreign/search", {"query": "a"}), 409, "model_mismatch")


def test_the_sample_is_loaded_once_repaired_and_made_anew_for_another_model(make_client, tmp_path, encoder):
    def restarted(model=encoder):
        client = make_client(model, demo=True)
        card = client.get("/v1/collections/sample").json()
        return client, client.app.state.server.collections.get("sample").info().generation, card

    client, generation, card = restarted()
    assert card["documents"] == len(SAMPLE)
    client.delete(f"/v1/collections/sample/documents/{SAMPLE[0]['id']}")
    changed = {"id": SAMPLE[1]["id"], "text": "something else", "language": "en"}
    client.put("/v1/collections/sample/documents", {"documents": [changed]})
    client, repaired, card = restarted()
    assert card["documents"] == len(SAMPLE)
    assert repaired > generation
    found = client.get(f"/v1/collections/sample/documents/{changed['id']}").json()
    assert (found["text"], found["language"]) == (SAMPLE[1]["text"], SAMPLE[1]["language"])
    client, unchanged, card = restarted()
    assert unchanged == repaired
    model = tmp_path / "model"
    model.mkdir()
    toy = toy_encoder(model)
    toy.runtime.max_tokens = None
    _, _, card = restarted(toy)
    assert (card["documents"], card["fingerprint"]) == (len(SAMPLE), toy.fingerprint)


def test_foreign_documents_in_the_sample_are_not_thrown_away(make_client, tmp_path, encoder):
    folder = Path(tmp_path / "data" / "collections" / "sample")
    with Collection(folder, encoder) as mine:
        mine.upsert([{"id": "mine", "text": "my own note", "language": "en"}])
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(Exception, match="'sample' has 1 documents that are not of the sample"):
        make_client(toy_encoder(model), demo=True)


def test_a_collection_of_ones_own_named_sample_is_not_mixed_with_the_sample(make_client, tmp_path, encoder):
    with Collection(tmp_path / "data" / "collections" / "sample", encoder) as mine:
        mine.upsert([{"id": "mine", "text": "my own note", "language": "en"}])
    with pytest.raises(Exception, match="'sample' holds other documents than the sample"):
        make_client(encoder, demo=True)
    with Collection(tmp_path / "data" / "collections" / "sample", encoder) as mine:
        assert mine.count == 1
