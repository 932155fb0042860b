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
