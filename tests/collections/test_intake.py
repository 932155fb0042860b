"""What documents become: passages, vectors, words, tokens; and what is wrong with them, by position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.collections.collection import Collection, CollectionOptions, Document
from embedsvc.collections.document import check_documents
from embedsvc.collections.intake import Intake
from embedsvc.collections.schema import Identity
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from tests.collections.conftest import DIMENSION


def intake(encoder: Encoder, **options: Any) -> Intake:
    identity = Identity(encoder.name, encoder.fingerprint, encoder.dimension)
    return Intake(identity, CollectionOptions(**options), encoder)


def test_batch_holds_every_passage_in_the_order_of_the_documents(encoder: Encoder) -> None:
    own = np.zeros(DIMENSION, np.float32)
    own[3] = 1e-30
    given = check_documents(
        [
            {"id": "a", "text": "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 .", "language": "en", "metadata": {"ü": [1]}},
            {"id": "b", "text": "anything", "language": "de", "vector": own},
            {"id": "c", "text": "unheard", "language": "sw"},
            {"id": "d", "text": "w1 w2", "language": "sw", "vector": own * 1e38 * 1e30},
            {"id": "e", "text": "", "language": "sw", "vector": own},
            {"id": "f", "text": "w5 w6", "language": "en"},
        ]
    )
    batch = intake(encoder, chunk_tokens=8, chunk_overlap=0).batch(given)
    texts = [
        [document.text[span.start : span.stop] for span in spans]
        for document, spans in zip(given, batch.spans, strict=True)
    ]
    assert texts[0][0].startswith("w1 w2")
    assert " ".join(texts[0]) == given[0].text
    assert texts[1:] == [["anything"], ["unheard"], ["w1 w2"], [""], ["w5 w6"]]
    first = len(texts[0])
    assert first > 1
    np.testing.assert_array_equal(batch.vectors[:first], encoder.encode(texts[0]))
    axis = np.eye(DIMENSION)[3]
    np.testing.assert_allclose(batch.vectors[first], axis)
    assert not batch.vectors[first + 1].any()
    np.testing.assert_allclose(batch.vectors[first + 2], axis)
    np.testing.assert_allclose(batch.vectors[first + 3], axis)
    np.testing.assert_array_equal(batch.vectors[first + 4], encoder.encode(["w5 w6"])[0])
    assert len(batch.vectors) == first + 5
    assert batch.metadata == ['{"ü": [1]}', None, None, None, None, None]
    assert batch.words[5] == "w5 w6"
    assert batch.token_vectors is None


def test_token_vectors_belong_to_their_passage(encoder: Encoder) -> None:
    given = check_documents(
        [
            {"id": "a", "text": "w1 w2 w3 w4 w5 w6 w7 w8 w9 .", "language": "en"},
            {"id": "b", "text": "w3", "language": "en"},
        ]
    )
    batch = intake(encoder, chunk_tokens=8, chunk_overlap=0, token_vectors=True).batch(given)
    assert batch.token_vectors is not None
    spans = [
        (document.text[s.start : s.stop])
        for document, own in zip(given, batch.spans, strict=True)
        for s in own
    ]
    assert [len(stored) // (2 * DIMENSION) for stored in batch.token_vectors] == [
        len(text.split()) for text in spans
    ]
    last = np.frombuffer(batch.token_vectors[-1], "<f2").astype(np.float32)
    np.testing.assert_allclose(last, encoder.encode(["w3"])[0], atol=1e-3)


GOOD = {"id": "good", "text": "east", "language": "en"}


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([GOOD, {**GOOD, "text": "north"}], r"documents\[0\] and documents\[1\] have the same id 'good'"),
        ([GOOD, {"id": "b", "text": " \n"}], r"documents\[1\].text is empty"),
        ([GOOD, {"id": "b", "text": ""}], r"documents\[1\].text is empty"),
        ([GOOD, {"id": "", "text": "x"}], r"documents\[1\].id is empty"),
        (
            [GOOD, {"id": "b", "text": "x\ud800"}],
            r"documents\[1\].text holds a lone surrogate at character 1",
        ),
        ([GOOD, {"id": "\udfff", "text": "x"}], r"documents\[1\].id holds a lone surrogate at character 0"),
        ([GOOD, {"id": "b", "text": "x\0"}], r"documents\[1\].text holds a NUL at character 1"),
        (
            [GOOD, {"id": "b", "text": "x", "language": "xx"}],
            r"documents\[1\].language: 'xx' is not a language code",
        ),
        (
            [GOOD, {"id": "b", "text": "x", "language": 5}],
            r"documents\[1\].language: 5 is not a language code",
        ),
        (
            [GOOD, {"id": "b", "text": "x" * 1_000_001}],
            r"documents\[1\].text has 1000001 characters; the limit is",
        ),
        ([GOOD, {"id": "b" * 513, "text": "x"}], r"documents\[1\].id has 513 characters; the limit is 512"),
        ([GOOD, {"id": "b", "text": "x", "lang": "en"}], r"documents\[1\] has an unknown field 'lang'"),
        ([GOOD, {"id": "b"}], r"documents\[1\] has no 'text'"),
        ([GOOD, {"id": 7, "text": "x"}], r"documents\[1\].id is int, not a string"),
        ([GOOD, "x"], r"documents\[1\] is str, not a document"),
        (GOOD, "documents must be a list of documents"),
    ],
    ids=range(16),
)
def test_one_bad_document_stops_the_batch_and_is_named(
    collection: Collection, documents: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        collection.upsert(documents)
    assert caught.value.param == "documents"
    assert collection.count == 0


def test_documents_are_kept_as_they_were_given(tmp_path: Path, encoder: Encoder) -> None:
    text = "  Straße \r\n\t w1\u0301 \U0001f600 \u200b w2  "
    with Collection(tmp_path / "c", encoder) as collection:
        assert collection.upsert([]).inserted == 0
        collection.upsert([Document("  id \n", text, "pt-BR", {"": {"a": None}})])
        assert collection.get("  id \n") == Document("  id \n", text, "pt", {"": {"a": None}})
        collection.upsert(iter([{"id": "gen", "text": "east"}]))
        assert collection.count == 2
