from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.document import Document
from embedsvc.mining.documents import (
    TextDocument,
    agreeing_share,
    mine_documents,
    pair_documents,
    read_documents,
    sentence_weights,
)
from indexing import normalize_rows

GERMAN = {
    "haus": ["Menü", "Die Katze schläft im Haus.", "Der Hund wartet vor der Tür.", "Das Haus ist alt."],
    "fluss": ["Menü", "Das Wasser im Fluss ist heute sehr kalt.", "Die Fische schwimmen im Fluss."],
    "schule": ["Menü", "Die Schule hat zwölf Lehrer.", "Musik ist wichtig für Kinder."],
    "zug": ["Menü", "Der Zug fährt um acht Uhr ab.", "Die Fahrkarte kostet zehn Euro."],
}
ENGLISH = {
    "school": ["Menu", "The school has twelve teachers.", "Music is important for children."],
    "bridge": ["Menu", "A strong wind destroyed the old bridge.", "Prices rose by four percent."],
    "house": [
        "Menu", "The cat sleeps in the house.", "The dog waits at the door.",
        "The invoice of March went to a wrong address.", "The house is old.",
    ],
    "river": ["Menu", "The water in the river is very cold today.", "The fish swim in the river."],
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def side(texts: dict[str, list[str]]) -> list[TextDocument]:
    return [
        TextDocument(name, Document(lines, []), line) for line, (name, lines) in enumerate(texts.items(), 1)
    ]


def test_documents_are_paired_aligned_and_the_rest_is_left(encoder: Encoder) -> None:
    found = mine_documents(side(GERMAN), side(ENGLISH), encoder)
    assert {(pair.source, pair.target) for pair in found.document_pairs} == {(0, 2), (1, 3), (2, 0)}
    assert all(0.5 <= pair.agreement <= 1 for pair in found.document_pairs)
    texts = {(pair.source.text, pair.target.text) for pair in found.pairs}
    assert ("Das Haus ist alt.", "The house is old.") in texts
    ids = {
        (pair.source.id, pair.target.id, pair.source.document, pair.target.document) for pair in found.pairs
    }
    assert ("schule:2", "school:2", "schule", "school") in ids
    assert {record.id for record in found.source_left} == {"zug:0", "zug:1", "zug:2"}
    assert {record.id for record in found.target_left} == {"bridge:0", "bridge:1", "bridge:2", "house:3"}
    left = next(record for record in found.target_left if record.id == "house:3")
    assert (left.text, left.document, left.line) == (
        "The invoice of March went to a wrong address.",
        "house",
        3,
    )


def test_every_sentence_is_in_a_pair_or_left(encoder: Encoder) -> None:
    found = mine_documents(side(GERMAN), side(ENGLISH), encoder)
    for documents, name, left in (
        (GERMAN, "source", found.source_left),
        (ENGLISH, "target", found.target_left),
    ):
        paired = [
            f"{getattr(pair, name).document}:{row}"
            for pair in found.pairs
            for row in getattr(pair, name).id.split(":")[1].split(",")
        ]
        every = [f"{key}:{row}" for key, lines in documents.items() for row in range(len(lines))]
        assert sorted([*paired, *(record.id for record in left)]) == sorted(every)


def test_a_single_document_on_each_side_is_a_pair(encoder: Encoder) -> None:
    both = {"schule": GERMAN["schule"]}, {"school": ENGLISH["school"]}
    found = mine_documents(side(both[0]), side(both[1]), encoder)
    assert [(pair.source, pair.target) for pair in found.document_pairs] == [(0, 0)]
    assert [pair.source.id for pair in found.pairs] == ["schule:0", "schule:1", "schule:2"]
    with pytest.raises(InvalidInputError, match="there is no document on one side"):
        mine_documents(side(both[0]), [], encoder)


def test_vectors_are_paired_one_to_one_best_first() -> None:
    generator = np.random.default_rng(0)
    source = normalize_rows(generator.standard_normal((30, 64)).astype(np.float32))
    target = normalize_rows(source[:20] + 0.05 * generator.standard_normal((20, 64)).astype(np.float32))
    source[4] = 0
    found = pair_documents(source, target)
    assert {(i, j) for i, j, score in found if score > 2} == {(i, i) for i in range(20) if i != 4}
    assert [score for _, _, score in found] == sorted((score for _, _, score in found), reverse=True)
    assert len({i for i, _, _ in found}) == len({j for _, j, _ in found}) == len(found)
    assert pair_documents(source * 0, target) == []


def test_agreement_is_the_share_of_telling_sentences_in_good_beads() -> None:
    beads = [Bead((0,), (0, 1), score=0.5), Bead((1,), (2,), score=0.1), Bead((2,), ()), Bead((), (3, 4))]
    every = np.ones(3, bool), np.ones(5, bool)
    assert agreeing_share(beads, every, 0.3) == pytest.approx(3 / 8)
    some = np.array([True, True, False]), np.array([False, True, True, False, True])
    assert agreeing_share(beads, some, 0.3) == pytest.approx(2 / 5)
    assert agreeing_share(beads, (every[0] & False, every[1] & False), 0.3) == 0


def test_sentences_of_many_documents_say_nothing() -> None:
    weights = sentence_weights(side({k: ["menu", "twice" if k in "ab" else "once"] for k in "abcd"}))
    assert [found[0] for found in weights] == [0, 0, 0, 0]
    assert weights[0][1] == pytest.approx(1 + np.log(2))
    weights = sentence_weights(side({k: ["menu", k] for k in "abcd"}))
    assert weights[3][1] == pytest.approx(1 + np.log(4))


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_documents_are_texts_or_lists_of_sentences(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "One. Two.", "language": "en"}, "", {"sentences": ["Eins. Zwei."], "id": 7}]
    documents = read_documents(written(tmp_path / "docs.jsonl", *rows, {"text": "Drei."}), "deu")
    assert [(item.id, item.line, item.document.language) for item in documents] == [
        ("a", 1, "en"), ("7", 3, "de"), ("4", 4, "de"),
    ]  # fmt: skip
    assert [item.document.sentences for item in documents] == [["One.", "Two."], ["Eins. Zwei."], ["Drei."]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "b"}, r'line 2: one of "text" and "sentences" is expected'),
        ({"text": "a", "sentences": ["a"]}, r'line 2: one of "text" and "sentences" is expected'),
        ({"text": 5}, "line 2: a string in text or a list in sentences is expected"),
        ({"sentences": []}, "line 2: a string in text or a list in sentences is expected"),
        ({"sentences": ["a", ""]}, r"line 2: sentences\[1\] is empty"),
        ({"sentences": ["a", 1]}, r"line 2: sentences\[1\] is int, not a text"),
        ({"text": " "}, r"line 2: text\[0\] is empty"),
        ({"text": "a", "id": "a"}, "line 2: id 'a' stands on line 1 too"),
        ({"text": "a", "id": [1]}, r"line 2: \"id\" is \[1\]; expected a string or a whole number"),
        ({"text": "a", "language": 3}, 'line 2: "language" is 3; expected a code'),
        ({"text": "a", "language": "xx-y-z-"}, "'xx-y-z-' is not a language code"),
        ("[1]", "line 2: list found; a JSON object expected"),
    ],
)
def test_a_bad_document_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = written(tmp_path / "docs.jsonl", {"id": "a", "text": "One."}, row)
    with pytest.raises(InvalidInputError, match=message):
        read_documents(path)


def test_a_file_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"docs\.jsonl has no document"):
        read_documents(written(tmp_path / "docs.jsonl", ""))
