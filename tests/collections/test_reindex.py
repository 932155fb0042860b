"""Re-embedding: the old vectors serve to the last moment, nothing is encoded twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedsvc.collections.reindex as reindexing
from embedsvc.collections import live_index
from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.reindex import ReindexResult, reindex
from embedsvc.collections.verify import verify
from embedsvc.collections.writer import Writer
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError, ModelMismatchError, StorageError, UnavailableError
from tests.collections.conftest import brute_force, documents, random_texts, write_tiny_model
from tests.collections.processes import BARE, die_at, filled, index_folders, run_until_killed

COUNT = 45
BATCH = 10
TEXTS = {f"d{i}": text for i, text in enumerate(random_texts(COUNT, seed=3))}
QUERIES = ["w1 w2", "w7", "w100 w200 w3 w4"]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexing, "_BATCH", BATCH)


def equals_brute_force(collection: Collection, encoder: Encoder, texts: dict[str, str]) -> None:
    assert {document.id: document.text for document in collection.documents()} == texts
    for query in QUERIES:
        ids, scores = brute_force(encoder, query, texts, 10)
        hits = collection.search_vector(encoder.encode([query])[0], top_k=10)
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=2e-3)
        assert {hit.id for hit in hits[:3]} <= set(ids)
    assert verify(collection).problems == []


class Counted:
    """An encoder that notes what it encodes, and does something before."""

    def __init__(self, encoder: Encoder, before: Callable[[], object] = lambda: None) -> None:
        self._encoder = encoder
        self._before = before
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Sequence[str], **options: Any) -> Any:
        self._before()
        self.texts += texts
        return self._encoder.encode(texts, **options)


def counted(encoder: Encoder, before: Callable[[], object] = lambda: None) -> Any:
    return Counted(encoder, before)


@pytest.fixture
def old(tmp_path: Path, encoder: Encoder) -> Path:
    """A collection made with `encoder`, with a saved index, closed."""
    with Collection(tmp_path / "c", encoder) as collection:
        collection.upsert(documents(list(TEXTS.values())))
        collection.build_index()
    return tmp_path / "c"


def test_all_vectors_become_those_of_the_new_model(
    old: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    seen: list[tuple[int, int]] = []
    with Collection(old, encoder) as collection:
        equals_brute_force(collection, encoder, TEXTS)
        result = reindex(collection, other_encoder, progress=lambda *step: seen.append(step))
        assert result == ReindexResult(COUNT, 0)
        assert seen == [(done, COUNT) for done in (0, 10, 20, 30, 40, 45)]
        equals_brute_force(collection, other_encoder, TEXTS)
        assert [operation.kind for operation in collection.operations()] == ["reindex", "upsert"]
    with Collection(old, other_encoder) as collection:
        equals_brute_force(collection, other_encoder, TEXTS)
        with collection._index.current() as (_, state):
            assert (state.base.is_saved, state.is_compact) == (True, True), "no index of the new vectors"
        assert reindex(collection, encoder).documents == COUNT  # and back
        equals_brute_force(collection, encoder, TEXTS)


POINTS: list[tuple[Any, str, str, int]] = [
    (Writer, "make_next_tables", "after", 1),
    (Writer, "insert_next", "before", 3),
    (Writer, "insert_next", "after", 3),
    (reindexing, "snapshot_content", "before", 1),
    (reindexing, "save_snapshot", "after", 1),
    (Writer, "take_over", "after", 1),
    (reindexing._Reindexing, "_flip", "after", 1),
]
COMMITTED = [0, 20, 20, 45, 45, 45, 45]


def reindex_and_die(path: Path, old_model: Path, new_model: Path, point: int) -> None:
    reindexing._BATCH = BATCH
    die_at(*POINTS[point])
    with Collection(path, load_encoder(old_model)) as collection:
        reindex(collection, load_encoder(new_model))


@pytest.fixture(scope="session")
def new_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "new", seed=2)


@pytest.mark.parametrize("point", range(len(POINTS)), ids=[f"{name}-{when}" for _, name, when, _ in POINTS])
def test_killed_it_goes_on_where_it_was(
    old: Path, encoder: Encoder, model_folder: Path, new_model: Path, point: int
) -> None:
    run_until_killed(reindex_and_die, old, model_folder, new_model, point)
    flipped = POINTS[point][1] == "_flip"
    new = counted(load_encoder(new_model))
    if flipped:
        with Collection(old, new) as collection:
            equals_brute_force(collection, new._encoder, TEXTS)
        return
    with Collection(old, encoder) as collection:
        equals_brute_force(collection, encoder, TEXTS)
        result = reindex(collection, new)
        assert result == ReindexResult(COUNT - COMMITTED[point], COMMITTED[point])
        assert new.texts == list(TEXTS.values())[COMMITTED[point] :], "something was encoded twice, or never"
        equals_brute_force(collection, new._encoder, TEXTS)
    with Collection(old, new) as collection:
        collection.upsert([{"id": "x", "text": "w1", "language": "en"}])
        collection.build_index()
        assert len(index_folders(old)) == 1
        equals_brute_force(collection, new._encoder, TEXTS | {"x": "w1"})


def test_another_model_halfway_starts_anew(
    old: Path, encoder: Encoder, other_encoder: Encoder, model_folder: Path, new_model: Path
) -> None:
    run_until_killed(reindex_and_die, old, model_folder, new_model, 2)
    with Collection(old, encoder) as collection:
        assert reindex(collection, other_encoder) == ReindexResult(COUNT, 0)
        equals_brute_force(collection, other_encoder, TEXTS)


def test_writes_meanwhile_are_in_the_new_vectors(old: Path, encoder: Encoder, other_encoder: Encoder) -> None:
    texts = dict(TEXTS)
    steps = iter(range(100))
    with Collection(old, encoder) as collection, Collection(old, encoder) as writer:

        def write() -> None:
            step = next(steps)
            if step > 6:
                return
            done, coming = f"d{step}", f"d{44 - step}"
            writer.delete([done])
            writer.upsert([{"id": coming, "text": f"w{step} w9", "language": "fr"}])
            writer.upsert([{"id": f"n{step}", "text": f"w{step} w8 w7", "language": "en"}])
            del texts[done]
            texts.pop(coming)
            texts[coming] = f"w{step} w9"
            texts[f"n{step}"] = f"w{step} w8 w7"
            equals_brute_force(writer, encoder, texts)

        reindex(collection, counted(other_encoder, write))
        assert next(steps) > 6
        equals_brute_force(collection, other_encoder, texts)


def test_writes_between_index_and_flip_are_not_lost(
    old: Path, encoder: Encoder, other_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = dict(TEXTS)
    save = reindexing.save_snapshot
    with Collection(old, encoder) as collection:

        def save_late(*arguments: Any) -> Any:
            record = save(*arguments)
            collection.upsert([{"id": "late", "text": "w4 w5", "language": "en"}])
            collection.upsert([{"id": "d7", "text": "w6 w5", "language": "en"}])
            collection.delete(["d3"])
            return record

        monkeypatch.setattr(reindexing, "save_snapshot", save_late)
        reindex(collection, other_encoder)
        del texts["d3"], texts["d7"]
        texts |= {"late": "w4 w5", "d7": "w6 w5"}
        equals_brute_force(collection, other_encoder, texts)
    with Collection(old, other_encoder) as collection:
        equals_brute_force(collection, other_encoder, texts)
        with collection._index.current() as (_, state):
            assert state.base.is_saved


def test_index_built_meanwhile_does_not_remove_the_new_one(
    old: Path, encoder: Encoder, other_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = reindexing.save_snapshot
    with Collection(old, encoder) as collection, Collection(old, encoder) as other:
        other.upsert([{"id": "x", "text": "w1", "language": "en"}])

        def save_and_build(*arguments: Any) -> Any:
            record = save(*arguments)
            other.build_index()
            return record

        monkeypatch.setattr(reindexing, "save_snapshot", save_and_build)
        reindex(collection, other_encoder)
    with Collection(old, other_encoder) as collection:
        equals_brute_force(collection, other_encoder, TEXTS | {"x": "w1"})
        with collection._index.current() as (_, state):
            assert state.base.is_saved


def test_index_of_the_old_model_that_is_late_is_dropped(
    old: Path, encoder: Encoder, other_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection(old, encoder) as collection, Collection(old, encoder) as other:
        other.upsert([{"id": "x", "text": "w1", "language": "en"}])
        content = live_index.snapshot_content

        def content_then_flip(*arguments: Any) -> Any:
            found = content(*arguments)
            with monkeypatch.context() as patch:
                # As if the lock had been lost: the flip itself must be refused.
                patch.setattr(reindexing, "only_builder", lambda *_a, **_k: nullcontext(True))
                reindex(collection, other_encoder)
            return found

        monkeypatch.setattr(live_index, "snapshot_content", content_then_flip)
        other.build_index()
        equals_brute_force(other, other_encoder, TEXTS | {"x": "w1"})


def test_two_at_once_are_refused(old: Path, encoder: Encoder, other_encoder: Encoder) -> None:
    refused: list[str] = []
    with Collection(old, encoder) as collection, Collection(old, encoder) as second:

        def again() -> None:
            with pytest.raises(
                UnavailableError, match="collection 'c' is being re-embedded already"
            ) as error:
                reindex(second, other_encoder)
            refused.append(error.value.message)

        reindex(collection, counted(other_encoder, again))
        assert len(refused) == 5
        equals_brute_force(collection, other_encoder, TEXTS)


def test_who_has_the_old_model_is_told_both_fingerprints(
    old: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    with Collection(old, encoder) as collection, Collection(old, encoder) as other:
        assert other.search("w1")
        reindex(collection, other_encoder)
        actions: list[Callable[[], object]] = [
            lambda: other.search("w1"),
            lambda: other.upsert([{"id": "x", "text": "w1"}]),
            lambda: Collection(old, encoder),
        ]
        for action in actions:
            with pytest.raises(ModelMismatchError) as caught:
                action()
            assert encoder.fingerprint in caught.value.message
            assert other_encoder.fingerprint in caught.value.message
        assert other.get("d0").text == TEXTS["d0"]
        assert other.search("w1", mode="lexical")
        assert other.count == COUNT


def test_vectors_encoded_before_the_flip_are_not_written_after_it(
    old: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    with Collection(old, encoder) as collection:

        def flip() -> None:
            late._before = lambda: None
            reindex(collection, other_encoder)

        late = counted(encoder, flip)
        with Collection(old, late) as writer, pytest.raises(ModelMismatchError):
            writer.upsert([{"id": "x", "text": "w1", "language": "en"}])
        equals_brute_force(collection, other_encoder, TEXTS)


def test_passages_debiasing_and_token_vectors_are_those_of_a_new_collection(
    tmp_path: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    options = CollectionOptions(chunk_tokens=8, chunk_overlap=2, debias="center", token_vectors=True)
    given = documents([" ".join(TEXTS[f"d{i}"] for i in range(j, j + 4)) for j in range(30)])
    with Collection(tmp_path / "c", encoder, options=options) as collection:
        collection.upsert(given)
        assert collection.info().passages > 60
        reindex(collection, other_encoder)
        assert verify(collection).problems == []
    with (
        Collection(tmp_path / "new", other_encoder, options=options) as fresh,
        Collection(tmp_path / "c", other_encoder) as collection,
    ):
        fresh.upsert(given)
        fresh.build_index()
        for query in QUERIES:
            assert collection.search(query, mode="hybrid") == fresh.search(query, mode="hybrid")
            assert collection.search(query, maxsim=20) == fresh.search(query, maxsim=20)
            assert collection.search(query, languages=["sw"]) == fresh.search(query, languages=["sw"])


def test_vectors_without_a_text_or_a_model_cannot_be_made_anew(
    old: Path, tmp_path: Path, encoder: Encoder, other_encoder: Encoder
) -> None:
    filled(tmp_path / "bare", 5)
    with (
        Collection(tmp_path / "bare", options=BARE) as bare,
        pytest.raises(InvalidInputError, match="collection 'bare' has no model"),
    ):
        reindex(bare, other_encoder)
    with Collection(old, encoder) as collection:
        collection.upsert([{"id": "image", "text": "", "vector": np.ones(16), "language": "en"}])
        new = counted(other_encoder)
        with pytest.raises(InvalidInputError, match="document 'image' has no text"):
            reindex(collection, new)
        assert new.texts == [], "this can be known before hours of work"
        collection.delete(["image"])
        equals_brute_force(collection, encoder, TEXTS)
        reindex(collection, other_encoder)
        equals_brute_force(collection, other_encoder, TEXTS)


def test_read_only_collection_is_refused(old: Path, encoder: Encoder, other_encoder: Encoder) -> None:
    with Collection(old, encoder) as collection:
        collection.store.read_only = True
        with pytest.raises(StorageError, match="read-only"):
            reindex(collection, other_encoder)
