"""What is written can be read and found: values beside brute force, through every kind of change."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections import live_index, segments, snapshots
from embedsvc.collections.collection import Collection, Document, Hit, UpsertResult
from embedsvc.encoder import Encoder
from embedsvc.errors import (
    DimensionMismatchError,
    InvalidInputError,
    ModelError,
    NotFoundError,
    StorageError,
)
from indexing import ShardOptions
from tests.collections.conftest import DIMENSION, brute_force, documents, random_texts

QUERIES = ["w1 w2", "w7", "w100 w200 w3 w4"]


def assert_equals_brute_force(collection: Collection, texts: dict[str, str], k: int = 10) -> None:
    """Same ids and cosines as brute force over ``texts``; ids of scores within rounding may swap."""
    for query in QUERIES:
        ids, scores = brute_force(collection.encoder, query, texts, k)
        hits = collection.search(query, top_k=k)
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=2e-4)
        assert {hit.id for hit in hits} == set(ids)
        for hit in hits:
            assert hit.text == texts[hit.id]


def test_cosines_are_those_computed_by_hand(collection: Collection) -> None:
    collection.upsert(
        [
            {"id": "e", "text": "east", "language": "en"},
            {"id": "n", "text": "north", "language": "en"},
            {"id": "ne", "text": "north east east", "language": "en", "metadata": {"x": [1, None, "ü"]}},
        ]
    )
    hits = collection.search("east")
    assert [(hit.id, round(hit.score, 3)) for hit in hits] == [("e", 1.0), ("ne", 0.894), ("n", 0.0)]
    assert hits[1] == Hit("ne", "north east east", "en", hits[1].score, {"x": [1, None, "ü"]})
    vector = np.zeros(DIMENSION)
    vector[:2] = 30, 40
    assert [(hit.id, round(hit.score, 3)) for hit in collection.search_vector(vector)] == [
        ("ne", round((0.6 * 2 + 0.8) / 5**0.5, 3)),
        ("n", 0.8),
        ("e", 0.6),
    ]


def test_search_follows_every_change_and_survives_reopening(tmp_path: Path, encoder: Encoder) -> None:
    texts = {document["id"]: document["text"] for document in documents(random_texts(300))}
    with Collection(tmp_path / "c", encoder) as collection:
        assert collection.search("w1") == []
        assert collection.upsert(documents(list(texts.values())[:200])) == UpsertResult(200, 0)
        assert_equals_brute_force(collection, dict(list(texts.items())[:200]))
        assert collection.upsert(documents(list(texts.values())[150:], first=150)) == UpsertResult(100, 50)
        assert_equals_brute_force(collection, texts)
        changed = {f"d{i}": f"w1 w2 w{i}" for i in range(0, 300, 7)}
        collection.upsert([{"id": id_, "text": text, "language": "fr"} for id_, text in changed.items()])
        texts |= changed
        assert_equals_brute_force(collection, texts)
        gone = [f"d{i}" for i in range(0, 300, 3)]
        assert collection.delete([*gone, "unknown"]) == len(gone)
        for id_ in gone:
            del texts[id_]
        assert_equals_brute_force(collection, texts)
        assert collection.count == len(texts) == 200
    with Collection(tmp_path / "c", encoder, create=False) as collection:
        assert_equals_brute_force(collection, texts)
        collection.build_index()
        assert_equals_brute_force(collection, texts)
        assert collection.languages() == {"de": 86, "sw": 86, "fr": 28}


def test_changes_to_indexed_documents_are_seen_at_once(collection: Collection) -> None:
    texts = {f"d{i}": text for i, text in enumerate(random_texts(200))}
    collection.upsert(documents(list(texts.values())))
    collection.build_index()
    assert_equals_brute_force(collection, texts)
    gone = [hit.id for hit in collection.search(QUERIES[0], top_k=5)]
    collection.delete(gone[:3])
    collection.upsert([{"id": gone[3], "text": "w55", "language": "en"}])
    texts = {id_: text for id_, text in texts.items() if id_ not in gone[:3]} | {gone[3]: "w55"}
    assert_equals_brute_force(collection, texts)
    collection.build_index()
    assert_equals_brute_force(collection, texts)


def test_language_filter_equals_brute_force(collection: Collection) -> None:
    given = documents(random_texts(300), languages="en de sw en en")
    collection.upsert(given)
    for languages in (["sw"], ["EN-us", "deu"], ["swh", "en", "de"]):
        wanted = {"EN-us": "en", "deu": "de", "swh": "sw"}
        codes = {wanted.get(code, code) for code in languages}
        texts = {d["id"]: d["text"] for d in given if d["language"] in codes}
        ids, scores = brute_force(collection.encoder, "w5 w6 w7", texts, 20)
        hits = collection.search("w5 w6 w7", languages=languages, top_k=20)
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=2e-4)
        assert {hit.id for hit in hits} == set(ids)
        assert {hit.language for hit in hits} <= codes
    assert collection.search("w5", languages=["fr"]) == []


def test_offset_pages_and_min_score_cuts(collection: Collection) -> None:
    collection.upsert(documents(random_texts(50)))
    everything = collection.search("w1 w2", top_k=50)
    assert len(everything) == 50
    assert collection.search("w1 w2", top_k=7, offset=7) == everything[7:14]
    assert collection.search("w1 w2", offset=50) == []
    threshold = everything[20].score
    assert collection.search("w1 w2", top_k=50, min_score=threshold) == everything[:21]
    assert collection.search("w1 w2", top_k=50, min_score=threshold, offset=19) == everything[19:21]


def test_equal_scores_stand_in_the_order_of_insertion(collection: Collection) -> None:
    collection.upsert([{"id": id_, "text": "w9 w8", "language": "en"} for id_ in ("z", "a", "m")])
    collection.upsert([{"id": "z", "text": "w9 w8", "language": "en"}])
    assert [hit.id for hit in collection.search("w9 w8")] == ["a", "m", "z"]


def test_text_without_known_tokens_is_kept_but_never_found(collection: Collection) -> None:
    collection.upsert([{"id": "?", "text": "unheard", "language": "en"}, {"id": "e", "text": "east"}])
    assert [hit.id for hit in collection.search("east")] == ["e"]
    assert collection.search("unheard") == []
    assert collection.get("?").text == "unheard"


def test_missing_language_is_detected(collection: Collection) -> None:
    collection.upsert([Document("a", "Где находится ближайшая библиотека?"), Document("b", "east")])
    assert collection.get("a") == Document("a", "Где находится ближайшая библиотека?", "ru")
    assert collection.get("b").language == "und"
    assert collection.languages() == {"ru": 1, "und": 1}


def test_get_of_an_unknown_id_names_it(collection: Collection) -> None:
    with pytest.raises(NotFoundError, match="collection 'help' has no document 'x'"):
        collection.get("x")


def test_info_counts_and_names_the_model(collection: Collection, encoder: Encoder) -> None:
    collection.upsert(documents(["east", "north"], languages="en de"))
    info = collection.info()
    assert (info.name, info.documents, info.languages) == ("help", 2, {"de": 1, "en": 1})
    assert (info.model, info.fingerprint, info.dimension) == ("tiny", encoder.fingerprint, DIMENSION)
    assert (info.generation, info.size_bytes > 0) == (1, True)


def test_info_reads_of_the_index_only_its_manifest(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "ShardOptions", partial(ShardOptions, flat_rows=500))
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(documents(random_texts(600)))
        assert collection.info().recall is None, "there is no index yet"
        collection.build_index()
        with collection._index.current() as (_, state):
            measured = state.base.index.recall
    assert measured is not None
    (manifest,) = (tmp_path / "c" / "index").glob("*/shards.json")
    with Collection(tmp_path / "c", encoder) as collection:
        info = collection.info()
        assert (info.recall, info.documents, info.passages) == (measured, 600, 600)
        assert collection._index._state is None, "the index has been opened"
        manifest.write_text(manifest.read_text() + " ")
        assert collection.info().recall is None, "the manifest is not the one on record"


def test_large_collection_gets_a_graph_and_stays_right(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "ShardOptions", partial(ShardOptions, flat_rows=500))
    monkeypatch.setattr(segments, "_LEAST_DELTA", 50)
    monkeypatch.setattr(live_index, "_SEARCHES_BEFORE_BUILD", 2)
    texts = random_texts(900)
    collection.upsert(documents(texts[:800]))
    collection.search("w1")
    assert collection._index._builder is None, "one search is not worth a graph"
    collection.search("w1")  # exact, while the graph is built in the background
    collection.upsert(documents(texts[800:], first=800))
    collection.delete(["d0", "d801"])
    collection._index.wait()
    wanted = {f"d{i}": text for i, text in enumerate(texts) if i not in (0, 801)}
    assert_equals_brute_force(collection, wanted)
    collection._index.wait()
    with collection._index.current() as (_, state):
        assert state.base.is_saved
        pool = state.base.index.pool
        assert pool is not None
        assert pool.kind.name == "hnsw"
    collection.upsert([{"id": "d7", "text": "w1 w2", "language": "en"}])
    wanted["d7"] = "w1 w2"
    assert_equals_brute_force(collection, wanted)
    with collection._index.current() as (_, state):
        assert state.base.index.pool is pool, "one change is not worth a new graph"


def test_index_finished_late_loses_nothing(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens while an index is built and saved, and before it is taken, is in the answers."""
    texts = random_texts(120)
    collection.upsert(documents(texts[:60]))
    collection.search("w1")
    wanted = {f"d{i}": text for i, text in enumerate(texts)}

    def change(step: int) -> None:
        collection.upsert(documents(texts[60 + 20 * step : 80 + 20 * step], first=60 + 20 * step))
        best, _ = brute_force(collection.encoder, QUERIES[step], dict(list(wanted.items())[:50]), 1)
        collection.delete(best)
        wanted.pop(best[0])
        collection.search("w1")

    save, load = live_index.save_snapshot, collection._index._loaded
    loads: list[int] = []

    def save_slowly(*arguments: Any) -> Any:
        change(0)
        record = save(*arguments)
        change(1)
        return record

    def load_slowly(view: Any) -> Any:
        state = load(view)
        loads.append(1)
        if len(loads) == 1:
            change(2)
        return state

    monkeypatch.setattr(live_index, "save_snapshot", save_slowly)
    monkeypatch.setattr(collection._index, "_loaded", load_slowly)
    collection.build_index()
    assert len(wanted) == 117
    assert_equals_brute_force(collection, wanted)


def test_threads_write_and_search_together(collection: Collection) -> None:
    texts = random_texts(160)
    failures: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for i in range(part, 160, 4):
                collection.upsert([{"id": f"d{i}", "text": texts[i], "language": "en"}])
                assert f"d{i}" in {hit.id for hit in collection.search(texts[i], top_k=160)}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_equals_brute_force(collection, {f"d{i}": text for i, text in enumerate(texts)})


def test_another_model_is_refused_with_both_fingerprints(
    collection: Collection, encoder: Encoder, other_encoder: Encoder
) -> None:
    collection.upsert(documents(["east"]))
    with pytest.raises(ModelError) as caught:
        Collection(collection.path, other_encoder)
    assert encoder.fingerprint in caught.value.message
    assert other_encoder.fingerprint in caught.value.message
    assert "re-embed it (embedsvc collections reindex)" in caught.value.message
    with Collection(collection.path) as without_encoder:  # the bundled model is another one, too
        assert without_encoder.get("d0").text == "east"
        with pytest.raises(ModelError, match=encoder.fingerprint):
            without_encoder.search("east")


def test_absent_collection_is_not_made_when_not_asked(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(NotFoundError, match="no collection at"):
        Collection(tmp_path / "none", encoder, create=False)
    assert not (tmp_path / "none").exists()


def test_closed_collection_says_so(tmp_path: Path, encoder: Encoder) -> None:
    collection = Collection(tmp_path / "c", encoder)
    collection.close()
    with pytest.raises(StorageError, match="the collection is closed"):
        collection.search("east")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0; an integer from 1 to 1000 expected"),
        ({"top_k": 1001}, "top_k is 1001"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"offset": -1}, "offset is -1; an integer from 0 to 9990 expected"),
        ({"offset": 9991}, "offset is 9991"),
        ({"min_score": float("nan")}, "min_score is nan"),
        ({"min_score": "0.5"}, "min_score is '0.5'"),
        ({"languages": ["en", "xx"]}, "'xx' is not a language code"),
        ({"languages": "en"}, "languages must be a list of codes, not 'en'"),
        ({"languages": []}, "languages is an empty list"),
    ],
)
def test_bad_search_options_are_named(
    collection: Collection, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        collection.search("east", **options)  # type: ignore[arg-type]
    assert message in caught.value.message


@pytest.mark.parametrize("query", ["", "  \n", None, 5])
def test_empty_query_is_refused(collection: Collection, query: str) -> None:
    with pytest.raises(InvalidInputError, match="query must be a text"):
        collection.search(query)


def test_bad_query_vectors_are_named(collection: Collection) -> None:
    with pytest.raises(DimensionMismatchError, match=r"shape \(3,\); the collection has vectors of \(16,\)"):
        collection.search_vector([1, 2, 3])
    with pytest.raises(InvalidInputError, match=r"vector\[1\] is nan"):
        collection.search_vector([0, float("nan"), *[1] * 14])
    with pytest.raises(InvalidInputError, match="no list of numbers"):
        collection.search_vector(["a"] * 16)  # type: ignore[list-item]
    assert collection.search_vector([0] * 16) == []
