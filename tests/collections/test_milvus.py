"""The verbs of a collection on Milvus, run against milvus-lite and compared with brute force."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embedsvc.cli.migrate import migrate_command
from embedsvc.collections.backends import open_collection_set
from embedsvc.collections.collection import Collection, CollectionOptions, Document, SearchOptions
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.milvus_client import MilvusServer, MilvusTable
from embedsvc.collections.milvus_migration import migrate, open_target
from embedsvc.collections.milvus_set import MilvusCollectionSet
from embedsvc.encoder import Encoder
from embedsvc.errors import (
    DimensionMismatchError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from embedsvc.settings import load_settings

from .conftest import DIMENSION, brute_force, documents, random_texts

pytestmark = pytest.mark.slow
Make = Callable[..., MilvusCollection]
NUMBERS = itertools.count()


@pytest.fixture(autouse=True, scope="module")
def _milvus() -> None:
    pytest.importorskip("pymilvus", reason="needs the [milvus] extra")
    pytest.importorskip("milvus_lite", reason="needs the [milvus] extra")


def restart(uri: str) -> None:
    """Close the file, as at the end of a process; the next connection opens it anew."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("milvus") / "shared.db")
    yield path
    restart(path)


@pytest.fixture
def make(uri: str, encoder: Encoder) -> Iterator[Make]:
    """Open collections in one file; a new one each time unless a name is given."""
    made: list[MilvusCollection] = []

    def open_one(
        name: str | None = None, encoder: Encoder | None = encoder, **options: Any
    ) -> MilvusCollection:
        made.append(MilvusCollection(uri, name or f"c{next(NUMBERS)}", encoder, **options))
        return made[-1]

    yield open_one
    for collection in made:
        collection.close()


def texts_by_id(given: list[dict[str, object]]) -> dict[str, str]:
    return {str(document["id"]): str(document["text"]) for document in given}


def test_hits_and_scores_are_those_of_brute_force(make: Make, uri: str, encoder: Encoder) -> None:
    collection = make()
    given = documents(random_texts(400))
    collection.upsert(given)
    queries = ["w1 w2 w3", "w17", "w250 w4"]
    for run in ("memory", "file"):  # a file opened anew has its rows in indexed segments
        for query, result in zip(queries, collection.query(queries), strict=True):
            ids, scores = brute_force(encoder, query, texts_by_id(given), 10)
            assert [hit.id for hit in result.hits] == ids, run
            np.testing.assert_allclose([hit.score for hit in result.hits], scores, atol=1e-5)
            alone = collection.search(query)
            assert [hit.id for hit in alone] == ids
            np.testing.assert_allclose([hit.score for hit in alone], scores, atol=1e-5)
        collection.close()
        restart(uri)
        collection = make(collection.name, create=False)


def test_what_is_written_is_found_at_once_replaced_and_deleted(make: Make) -> None:
    collection = make()
    assert collection.search("east") == []
    first = collection.upsert(
        [
            {"id": "a", "text": "east", "language": "en"},
            {"id": "b", "text": "north north w1", "language": "de"},
        ]
    )
    assert (first.inserted, first.updated) == (2, 0)
    assert [hit.id for hit in collection.search("east", top_k=1)] == ["a"]
    second = collection.upsert(
        [
            {"id": "a", "text": "north", "language": "sw", "metadata": {"n": 1}},
            {"id": "c", "text": "east", "language": "en"},
        ]
    )
    assert (second.inserted, second.updated) == (1, 1)
    assert [hit.id for hit in collection.search("east", top_k=1)] == ["c"]
    assert collection.get("a") == Document("a", "north", "sw", {"n": 1})
    assert collection.languages() == {"de": 1, "en": 1, "sw": 1}
    assert collection.delete(["a", "a", "unknown"]) == 1
    assert collection.count == 2
    assert [hit.id for hit in collection.search("north", top_k=1)] == ["b"]
    with pytest.raises(NotFoundError, match="has no document 'a'"):
        collection.get("a")
    assert collection.delete_where(languages=["de"]) == 1
    assert [document.id for document in collection.documents()] == ["c"]
    assert collection.verify().ok


def test_documents_come_back_as_they_were(make: Make, uri: str) -> None:
    given = [
        Document("plain", "w1 w2", "en", None),
        Document("'\"\\ \n{}%", "w3 ' \" \\", "de", {}),
        Document(
            "日本" * 256, "w4 日本語 🎉", "ja", {"a": [1, 1.5, None, {"b": ["x", True]}], "ключ": 2**53}
        ),
        Document("no token known", "unbekannt", "de", {"long": "x" * 60_000}),
    ]
    collection = make()
    collection.upsert(given)
    collection.close()
    restart(uri)
    collection = make(collection.name, create=False)
    assert {document.id: document for document in collection.documents()} == {d.id: d for d in given}
    assert [collection.get(document.id) for document in given] == given
    assert next(hit.id for hit in collection.search("w3", top_k=4)) == given[1].id
    assert "no token known" not in [hit.id for hit in collection.search("w3", top_k=4)]


@pytest.mark.parametrize(
    "options",
    [
        {"languages": ["sw"]},
        {"languages": ["de", "en"], "filter": {"n": {"$gte": 30, "$lt": 200}}, "offset": 3},
        {"filter": {"$or": [{"n": {"$in": [3, 5, 8]}}, {"tags": "t1"}]}},
        {"prefer_language": {"sw": 0.3}},
        {"balance": "round_robin"},
        {"balance": {"sw": 2, "*": 1}},
        {"group_by": "group", "top_k": 5},
        {"min_score": 0.4},
        {"balance": "round_robin", "group_by": "group", "filter": {"$not": {"n": {"$lt": 10}}}},
    ],
    ids=str,
)
def test_options_give_what_an_embedded_collection_gives(
    make: Make, tmp_path: Path, encoder: Encoder, options: dict[str, Any]
) -> None:
    given = documents(random_texts(240))
    for number, document in enumerate(given):
        document["metadata"] = {"n": number, "group": f"g{number % 7}", "tags": [f"t{number % 11}", "all"]}
    collection = make("options")
    if not collection.count:
        collection.upsert(given)
    with Collection(tmp_path / "embedded", encoder) as embedded:
        embedded.upsert(given)
        wanted, found = (
            where.query(["w5 w6"], options=SearchOptions(facets=True, **options))[0]
            for where in (embedded, collection)
        )
    assert [hit.id for hit in found.hits] == [hit.id for hit in wanted.hits]
    np.testing.assert_allclose(  # the embedded store keeps float16
        [hit.score for hit in found.hits], [hit.score for hit in wanted.hits], atol=2e-3
    )
    assert found.hits
    assert found.facets == wanted.facets
    assert [hit.metadata for hit in found.hits] == [hit.metadata for hit in wanted.hits]


def test_passages_are_grouped_to_their_document(make: Make, tmp_path: Path, encoder: Encoder) -> None:
    options = CollectionOptions(chunk_tokens=8, chunk_overlap=2)
    texts = [". ".join(random_texts(6, seed)) for seed in range(30)]
    given = documents([*texts, "w7 w8"])
    collection = make(options=options)
    collection.upsert(given)
    with Collection(tmp_path / "embedded", encoder, options=options) as embedded:
        embedded.upsert(given)
        for mode in ("dense", "lexical"):
            hits = collection.search("w7 w8", top_k=20, mode=mode)
            assert len({hit.id for hit in hits}) == len(hits)
            assert all(hit.text == texts_by_id(given)[hit.id] for hit in hits)
            assert all(hit.text[p.start : p.stop] == p.text for hit in hits for p in [hit.passage] if p)
        wanted = embedded.search("w7 w8", top_k=20)
        hits = collection.search("w7 w8", top_k=20)
        assert [(hit.id, hit.passage) for hit in hits] == [(hit.id, hit.passage) for hit in wanted]
        assert sum(hit.passage is not None for hit in hits) >= 15
        assert collection.info().passages == embedded.info().passages > 60
    assert [document.text for document in collection.documents(filter={"n": 3})] == [texts[3]]


def test_a_text_longer_than_a_string_of_milvus_is_kept_whole(make: Make) -> None:
    collection = make(options=CollectionOptions(dimension=2), encoder=None)
    text = "漢字かな " * 40_000 + "letztes"
    collection.upsert([Document("long", text, "ja", {"n": 1}, np.array([3, 4], np.float32))])
    collection.upsert([Document("other", "x", "ja", None, np.array([1, 0], np.float32))])
    found = collection.get("long", vector=True)
    assert found.text == text
    np.testing.assert_allclose(found.vector, [0.6, 0.8], atol=1e-6)
    (hit,) = collection.query(["letztes"], options=SearchOptions(mode="lexical"))[0].hits
    assert (hit.id, hit.text, hit.passage) == ("long", text, None)
    assert [hit.id for hit in collection.search_vector([0, 1])] == ["long", "other"]
    assert (collection.count, collection.info().passages) == (2, 2)


def test_words_are_found_in_every_script(make: Make) -> None:
    collection = make()
    texts = {
        "hi": "नमस्ते दुनिया",
        "zh": "我喜欢学习中文",
        "ru": "Привет мир",
        "de": "Grüße aus Köln",
        "ar": "مرحبا بالعالم",
    }
    collection.upsert([{"id": code, "text": text, "language": code} for code, text in texts.items()])
    for code, word in {"hi": "दुनिया", "ru": "мир", "de": "Köln", "ar": "مرحبا", "zh": texts["zh"]}.items():
        assert [hit.id for hit in collection.search(word, mode="lexical", query_language=code)] == [code]
    assert collection.search("nirgends", mode="lexical") == []


def test_hybrid_joins_both_rankings(make: Make) -> None:
    collection = make()
    collection.upsert(
        [
            {"id": "meaning", "text": "east east w1", "language": "en"},
            {"id": "both", "text": "east rareword", "language": "en"},
            {"id": "words", "text": "north rareword rareword", "language": "de"},
        ]
    )
    (result,) = collection.query(["east rareword"], options=SearchOptions(mode="hybrid", explain=True))
    assert result.hits[0].id == "both"
    assert {hit.id for hit in result.hits} == {"meaning", "both", "words"}
    explained = result.hits[0].explanation
    assert explained is not None
    assert explained["dense_rank"] == 1
    assert result.plan is not None
    assert result.plan["mode"] == "hybrid"


def test_an_interrupted_upsert_loses_nothing(
    make: Make, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make(options=CollectionOptions(chunk_tokens=8, chunk_overlap=0))
    long = [". ".join(random_texts(6, seed)) for seed in range(2)]
    collection.upsert(documents([long[0], "w1"]))

    def fails(*_: Any) -> None:
        raise UnavailableError("killed")

    with monkeypatch.context() as patched:  # the new rows are there, those left over not yet deleted
        patched.setattr(MilvusTable, "delete", fails)
        with pytest.raises(UnavailableError):
            collection.upsert(documents(["w9 w9"]))
    assert collection.get("d0").text == "w9 w9"
    query = ". ".join(long[0].split(". ")[-2:])  # what is left over would be nearest
    hits = collection.search(query, top_k=5)
    ids, scores = brute_force(encoder, query, {"d0": "w9 w9", "d1": "w1"}, 2)
    assert [(hit.id, hit.passage) for hit in hits] == [(id_, None) for id_ in ids]
    np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
    assert collection.verify().problems == [
        f"{collection.info().passages - 2} rows are left from interrupted upserts; no search returns them"
    ]
    collection.upsert(documents(["w9 w9"]))
    assert collection.verify().ok
    assert collection.info().passages == 2

    calls = itertools.count()
    real = MilvusTable.upsert

    def dies_in_the_second_call(table: MilvusTable, rows: Any) -> None:
        if next(calls):
            fails()
        real(table, rows)

    with monkeypatch.context() as patched:
        patched.setattr("embedsvc.collections.milvus_writer._CALL_ROWS", 1)
        patched.setattr(MilvusTable, "upsert", dies_in_the_second_call)
        with pytest.raises(UnavailableError):
            collection.upsert(documents(["w5", "w6", "w7"], "en de"))
    assert [collection.get(f"d{i}").text for i in (0, 1)] == ["w5", "w1"]
    assert collection.verify().ok


INGEST = textwrap.dedent("""
    import sys
    from embedsvc.collections.milvus import MilvusCollection
    from embedsvc.encoder import load_encoder
    collection = MilvusCollection(sys.argv[1], "killed", load_encoder(sys.argv[2]))
    for batch in range(100_000):
        numbers = range(batch * 20, batch * 20 + 20)
        collection.upsert([{"id": f"d{i}", "text": f"w{i % 300} w7", "language": "en"} for i in numbers])
        print(batch, flush=True)
""")


def test_what_a_killed_process_had_acknowledged_is_there(
    tmp_path: Path, encoder: Encoder, model_folder: Path
) -> None:
    uri = str(tmp_path / "killed.db")
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, uri, str(model_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(10)]
    process.kill()
    seen += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    process.wait()
    with MilvusCollection(uri, "killed", encoder, create=False) as collection:
        assert collection.count >= 20 * len(seen)
        for i in range(20 * len(seen)):
            assert collection.get(f"d{i}").text == f"w{i % 300} w7"
        assert collection.verify().ok
    restart(uri)


def test_a_document_with_missing_rows_is_reported(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = make(options=CollectionOptions(chunk_tokens=8, chunk_overlap=0))
    long = [". ".join(random_texts(6, seed)) for seed in range(2)]
    collection.upsert(documents([long[0], "w1"]))
    real = MilvusTable.upsert
    with monkeypatch.context() as patched:
        patched.setattr(MilvusTable, "upsert", lambda table, rows: real(table, rows[:1]))
        collection.upsert(documents([long[1]]))
    with pytest.raises(StorageError, match=r"document 'd0' has \d of \d rows in Milvus"):
        collection.get("d0")
    problems = collection.verify().problems
    assert len(problems) == 2
    assert "document 'd0' has" in problems[0]
    collection.upsert(documents([long[1]]))
    assert collection.verify().ok
    assert collection.get("d0").text == long[1]


def test_another_model_is_refused_naming_both_fingerprints(
    make: Make, encoder: Encoder, other_encoder: Encoder
) -> None:
    name = make().name
    with pytest.raises(ModelMismatchError) as refused:
        make(name, encoder=other_encoder)
    assert encoder.fingerprint in refused.value.message
    assert other_encoder.fingerprint in refused.value.message
    found = make(name, encoder=other_encoder, find_encoder={encoder.fingerprint: encoder}.get)
    found.upsert([{"id": "a", "text": "east"}])
    assert [hit.score for hit in found.search("east")] == pytest.approx([1.0])
    with pytest.raises(InvalidInputError, match="chunk_overlap = 32, not 4"):
        make(name, options=CollectionOptions(chunk_overlap=4))
    with pytest.raises(NotFoundError, match="no collection 'missing'"):
        make("missing", create=False)


def test_a_collection_without_a_model_takes_vectors(make: Make) -> None:
    collection = make(encoder=None, options=CollectionOptions(dimension=3))
    collection.upsert(
        [
            {"id": "x", "text": "first", "language": "en", "vector": np.array([2, 0, 0], np.float32)},
            {"id": "y", "text": "second", "language": "de", "vector": np.array([0, 1, 0], np.float32)},
        ]
    )
    hits = collection.search_vector([1, 1e-3, 0])
    assert [hit.id for hit in hits] == ["x", "y"]
    assert [hit.score for hit in hits] == pytest.approx([1, 1e-3], abs=1e-6)
    assert collection.search_vector([0, 0, 0]) == []
    with pytest.raises(InvalidInputError, match="has no model"):
        collection.search("first")
    with pytest.raises(InvalidInputError, match=r"documents\[0\] has no vector"):
        collection.upsert([{"id": "z", "text": "third"}])
    with pytest.raises(DimensionMismatchError, match=r"shape \(2,\)"):
        collection.search_vector([1, 0])
    with pytest.raises(InvalidInputError, match=r"vector\[1\] is nan"):
        collection.search_vector([1, float("nan"), 0])
    assert collection.count == 2


def test_bad_input_is_refused_before_anything_is_written(make: Make) -> None:
    collection = make()
    collection.upsert([{"id": "a", "text": "east", "metadata": {"year": 2020}}])
    with pytest.raises(InvalidInputError, match=r"documents\[1\].text is empty"):
        collection.upsert([{"id": "b", "text": "w1"}, {"id": "c", "text": " "}])
    with pytest.raises(InvalidInputError, match=r"documents\[1\].metadata has 5001 values in 2 fields"):
        collection.upsert(
            [
                {"id": "b", "text": "w1"},
                {"id": "c", "text": "w2", "metadata": {"l": list(range(5000)), "m": 1}},
            ]
        )
    with pytest.raises(InvalidInputError, match="did you mean 'year'"):
        collection.search("east", filter={"yaer": 2020})
    with pytest.raises(InvalidInputError, match="group_by: no document has a field 'author'; known: year"):
        collection.search("east", group_by="author")
    with pytest.raises(InvalidInputError, match="maxsim is not offered with backend milvus"):
        collection.search("east", maxsim=10)
    with pytest.raises(InvalidInputError, match="rerank needs a cross-encoder"):
        collection.search("east", rerank=10)
    with pytest.raises(InvalidInputError, match="give a filter or languages"):
        collection.delete_where()
    assert [document.id for document in collection.documents()] == ["a"]
    for options in (CollectionOptions(debias="center"), CollectionOptions(token_vectors=True)):
        with pytest.raises(InvalidInputError, match="is not offered with backend milvus"):
            make("refused", options=options)
    with pytest.raises(NotFoundError):
        make("refused", create=False)


def test_a_cluster_that_does_not_answer_is_unavailable(encoder: Encoder) -> None:
    with pytest.raises(UnavailableError, match=r"Milvus at http://127\.0\.0\.1:9 does not answer") as raised:
        MilvusCollection("http://127.0.0.1:9", "help", encoder)
    assert raised.value.__cause__ is not None


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingExtraError, match=r"backend milvus needs the \[milvus\] extra"):
        MilvusServer(str(tmp_path / "x.db"))


def test_a_set_knows_its_collections_by_name(tmp_path: Path, encoder: Encoder) -> None:
    uri = str(tmp_path / "set.db")
    settings = load_settings(backend="milvus", milvus_uri=uri, data_dir=tmp_path)
    found = open_collection_set(settings, encoder)
    assert isinstance(found, MilvusCollectionSet)
    assert found.names() == []
    found.open("b-c").upsert([{"id": "a", "text": "east", "language": "en"}])
    found.create("b_c", CollectionOptions(dimension=2))
    found.open("1a")
    assert found.names() == ["1a", "b-c", "b_c"]
    assert found.get("b-c").count == 1
    assert found.get("b_c").dimension == 2
    with pytest.raises(InvalidInputError, match="'b-c' exists already"):
        found.create("b-c")
    other = MilvusCollectionSet(uri, encoder)
    other.delete("b-c")
    with pytest.raises(NotFoundError, match="no collection 'b-c'; known: 1a, b_c"):
        found.get("b-c")
    assert found.open("b-c").count == 0
    other.close()
    found.close()
    restart(uri)


def test_migration_copies_documents_with_their_vectors(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "target.db")
    long = ". ".join(random_texts(6))
    given = documents([*random_texts(120), long, "unknown words"])
    seen: list[tuple[int, int]] = []
    options = CollectionOptions(chunk_tokens=12, chunk_overlap=2)
    with Collection(tmp_path / "collections" / "help", encoder, options=options) as source:
        source.upsert(given)
        monkeypatch.setattr("embedsvc.collections.milvus_migration._BATCH", 50)
        monkeypatch.setattr(type(encoder), "encode", None)  # nothing is encoded anew
        with open_target(source, uri) as target:
            real = MilvusCollection.write
            with monkeypatch.context() as patched:

                def dies_later(collection: MilvusCollection, *batch: Any) -> Any:
                    if collection.count:
                        raise UnavailableError("killed")
                    return real(collection, *batch)

                patched.setattr(MilvusCollection, "write", dies_later)
                with pytest.raises(UnavailableError):
                    migrate(source, target)
            assert target.count == 50
            assert migrate(source, target, progress=lambda *done: seen.append(done)) == 72
            assert seen == [(50, 122), (100, 122), (122, 122)]
            assert migrate(source, target) == 0
            wanted = {document.id: document for document in source.documents(vectors=True)}
            for document in target.documents(vectors=True):
                expected = wanted.pop(document.id)
                assert document.text == expected.text
                assert (document.language, document.metadata) == (expected.language, expected.metadata)
                assert (document.vector is None) == (expected.vector is None)
                if document.vector is not None:
                    np.testing.assert_allclose(document.vector, expected.vector, atol=1e-6)
            assert not wanted
            assert target.info().passages == source.info().passages > 122
            query = np.ones(DIMENSION)
            assert [(hit.id, hit.passage) for hit in target.search_vector(query, top_k=30)] == [
                (hit.id, hit.passage) for hit in source.search_vector(query, top_k=30)
            ]
            assert target.verify().ok
    monkeypatch.undo()
    restart(uri)


def test_the_command_migrates_what_has_changed(
    tmp_path: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    uri = str(tmp_path / "target.db")
    with Collection(tmp_path / "collections" / "help", encoder) as source:
        source.upsert(documents(["w1", "w2", "w3"]))
    command = ["help", "--to", uri, "--as", "copy", "--data-dir", str(tmp_path)]

    def output() -> str:
        answer = CliRunner().invoke(migrate_command, command, catch_exceptions=False)
        assert answer.exit_code == 0
        return answer.stdout

    assert output() == "copy: 3 documents copied, 3 in all\n"
    with MilvusCollection(uri, "copy", encoder) as target:
        target.upsert([{"id": "d1", "text": "w200", "language": "en"}])
    with Collection(tmp_path / "collections" / "help", encoder) as source:
        source.upsert(documents(["w9"], first=0))
        source.upsert(documents(["w10"], first=1))
    assert output() == "copy: 1 documents copied, 3 in all\n"
    with MilvusCollection(uri, "copy", encoder) as target:
        assert [target.get(f"d{i}").text for i in range(3)] == ["w9", "w200", "w3"]
    with (
        Collection(tmp_path / "collections" / "other", other_encoder) as other,
        MilvusCollection(uri, "copy", encoder) as target,
        pytest.raises(ModelMismatchError, match=f"{other_encoder.fingerprint}.*{encoder.fingerprint}"),
    ):
        migrate(other, target)
    restart(uri)
