from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsvc.collections.collection import Collection
from embedsvc.encoder import load_encoder
from embedsvc.server.sample import SAMPLE_FILE
from embedsvc.settings import Settings
from tests.collections.conftest import documents, random_texts, write_tiny_model
from tests.scheduling.toy_runtime import toy_encoder
from tests.server.conftest import AppClient, error_of
from tests.server.tiny_server import tiny_client

SAMPLE = [json.loads(line) for line in SAMPLE_FILE.read_text(encoding="utf-8").splitlines()]


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


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_collections_name_those_that_there_are(client, method):
    error = error_of(client.request(method, "/v1/collections/nope"), 404, "not_found")
    assert error["message"].startswith("no collection 'nope'; known: ")
    assert "sample" in error["message"]
    error_of(client.request(method, "/v1/collections/Bad%20Name"), 400, "invalid_input")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """The models "old" and "new", and a folder with a damaged collection and one of the model "gone"."""
    folder = tmp_path_factory.mktemp("tiny")
    gone = load_encoder(write_tiny_model(folder / "gone", seed=9))
    with Collection(folder / "data" / "collections" / "foreign", gone) as foreign:
        foreign.upsert(documents(["w1 w2", "w3", "w1"]))
    broken = folder / "data" / "collections" / "broken" / "documents.sqlite"
    broken.parent.mkdir()
    broken.write_bytes(b"no database" * 100)
    client = tiny_client(folder)
    yield client
    client.close()


def test_a_collection_is_made_with_its_options_and_described(tiny):
    given = {"name": "made", "model": "new", "chunk_tokens": 64, "chunk_overlap": 8, "recall": 0.9}
    answer = tiny.post("/v1/collections", given)
    assert answer.status_code == 201
    card = answer.json()
    new = tiny.app.state.server.models.find("new")
    assert card == {
        "name": "made",
        "documents": 0,
        "passages": 0,
        "languages": {},
        "fields": [],
        "model": "new",
        "fingerprint": new.folder.fingerprint,
        "dimension": 16,
        "options": {
            "dimension": None,
            "debias": "none",
            "debias_pairs": None,
            "token_vectors": False,
            "chunk_tokens": 64,
            "chunk_overlap": 8,
            "recall": 0.9,
        },
        "generation": 0,
        "created": card["created"],
        "size_bytes": card["size_bytes"],
        "recall": None,
        "problem": None,
    }
    assert card["size_bytes"] > 0
    written = {"documents": documents(["w1", "w2", "w3"])}
    tiny.put("/v1/collections/made/documents", written)
    card = tiny.get("/v1/collections/made").json()
    assert (card["documents"], card["passages"], card["generation"]) == (3, 3, 1)
    assert (card["languages"], card["fields"]) == ({"de": 1, "en": 1, "sw": 1}, ["n"])
    tiny.put("/v1/collections/by-default/documents", written)
    assert tiny.get("/v1/collections/by-default").json()["model"] == "old"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "name", "name is missing"),
        ({"name": "../x"}, "name", "collection name '../x': expected 1 to 63 of"),
        ({"name": "made-before"}, "name", "collection 'made-before' exists already"),
        ({"name": "x", "dimension": 0}, "dimension", "dimension is 0; an integer from 1 to 65536 expected"),
        ({"name": "x", "dimension": 3, "model": "old"}, "dimension", "give model or dimension, not both"),
        ({"name": "x", "dimension": 3, "token_vectors": True}, "token_vectors", "token_vectors needs a mod"),
        ({"name": "x", "debias": "magic"}, "debias", "debias is 'magic'; expected"),
        ({"name": "x", "token_vectors": "yes"}, "token_vectors", "token_vectors is a string, not true or"),
        ({"name": "x", "chunk_tokens": 7}, "chunk_tokens", "chunk_tokens is 7; an integer from 8 to"),
        ({"name": "x", "chunk_overlap": -1}, "chunk_overlap", "chunk_overlap is -1; an integer from 0 to"),
        ({"name": "x", "chunk_tokens": 20}, "chunk_overlap", "chunk_overlap = 32; at most half of chunk_"),
        ({"name": "x", "recall": 0.3}, "recall", "recall is 0.3; a number from 0.5 to 1 expected"),
        ({"name": "x", "recal": 0.3}, None, "unknown field 'recal'; did you mean 'recall'?"),
    ],
)
def test_a_collection_that_cannot_be_is_refused_and_not_made(tiny, body, param, message):
    tiny.post("/v1/collections", {"name": "made-before"})
    error = error_of(tiny.post("/v1/collections", body), 400, "invalid_input")
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == param
    error_of(tiny.get("/v1/collections/x"), 404, "not_found")


def test_a_creation_that_was_killed_before_its_tables_is_made_good(tiny):
    database = tiny.app.state.server.collections.folder / "killed" / "documents.sqlite"
    database.parent.mkdir(parents=True)
    database.touch()
    made = tiny.post("/v1/collections", {"name": "killed", "dimension": 3})
    assert (made.status_code, made.json()["dimension"]) == (201, 3)
    error_of(tiny.post("/v1/collections", {"name": "killed"}), 400, "invalid_input")
    tiny.delete("/v1/collections/killed")


def test_an_unknown_model_is_refused_with_those_that_there_are(tiny):
    error = error_of(tiny.post("/v1/collections", {"name": "x", "model": "gone"}), 404, "model_not_found")
    assert error["message"] == "no model 'gone'; this server has: old, new"
    error_of(tiny.get("/v1/collections/x"), 404, "not_found")


def test_a_collection_whose_model_is_not_served_gives_all_that_needs_no_model(tiny):
    cards = {card["name"]: card for card in tiny.get("/v1/collections").json()["collections"]}
    foreign, models = cards["foreign"], tiny.app.state.server.models
    assert (foreign["documents"], foreign["model"]) == (3, "gone")
    assert "not a database" in cards["broken"]["problem"]
    path = "/v1/collections/foreign"
    put = tiny.put(f"{path}/documents", {"documents": documents(["w1"])})
    for answer in (put, tiny.post(f"{path}/search", {"query": "w1"})):
        error = error_of(answer, 409, "model_mismatch")
        assert f"'gone' (fingerprint {foreign['fingerprint']})" in error["message"]
        assert f"'old' (fingerprint {models.default.folder.fingerprint})" in error["message"]
        assert error["message"] == foreign["problem"]
    stored = tiny.get(f"{path}/documents/d0?vector=true").json()
    found = tiny.post(f"{path}/search", {"vector": stored["vector"], "facets": True}).json()
    assert found["hits"][0]["id"] == "d0"
    assert found["facets"] == {"de": 1, "en": 1, "sw": 1}
    words = tiny.post(f"{path}/search", {"query": "w3", "mode": "lexical"}).json()
    assert [hit["id"] for hit in words["hits"]] == ["d1"]
    assert len(tiny.get(f"{path}/documents").text.splitlines()) == 3
    assert tiny.delete(f"{path}/documents/d2").json() == {"deleted": 1}
    assert tiny.get(path).json()["documents"] == 2


def test_verify_tells_what_is_wrong(tiny):
    tiny.put("/v1/collections/checked/documents", {"documents": documents(["w1", "w2"])})
    report = tiny.post("/v1/collections/checked/verify", None).json()
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["checked"]["documents"] == 2
    collection = tiny.app.state.server.collections.get("checked")
    with collection.store.writing() as writer:
        writer.connection.execute("UPDATE passages SET vector = x'0102' WHERE row = 1")
    report = tiny.post("/v1/collections/checked/verify", None).json()
    assert report["ok"] is False
    error_of(tiny.post("/v1/collections/nope/verify", None), 404, "not_found")


def test_a_model_that_was_unloaded_is_loaded_again_for_its_collection(tmp_path):
    """Room is for one model beside the default one; each collection calls for its own in turn."""
    folders = [write_tiny_model(tmp_path / name, seed) for seed, name in enumerate("abc")]
    size = sum(file.stat().st_size for file in folders[0].glob("*.safetensors"))
    settings = Settings(
        model=tuple(map(str, folders)), data_dir=tmp_path / "data", max_model_bytes=int(size * 1.5 * 2.5)
    )
    client = AppClient(settings, None)
    texts = random_texts(9)
    for _ in range(2):
        for folder in folders:
            name = folder.name
            client.post("/v1/collections", {"name": name, "model": name})
            written = client.put(f"/v1/collections/{name}/documents", {"documents": documents(texts)})
            assert written.status_code == 200, written.text
            hits = client.post(f"/v1/collections/{name}/search", {"query": texts[4]}).json()["hits"]
            assert hits[0]["id"] == "d4"
            assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)
            encoder = load_encoder(folder)
            (vector,) = encoder.encode(texts[2:3])
            stored = client.get(f"/v1/collections/{name}/documents/d2?vector=true").json()["vector"]
            assert stored == pytest.approx(vector, abs=1e-3)
    loaded = [model.name for model in client.app.state.server.models.all if model.is_loaded]
    assert loaded == ["a", "c"]
    client.close()


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
