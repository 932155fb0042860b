from __future__ import annotations

from pathlib import Path

import pytest

from embedsvc import align, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.document import document_of_text, joined, read_document


def test_every_line_that_is_not_blank_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ein Satz.  Noch einer.\n\n\tDer  dritte.\n", encoding="utf-8")
    document = read_document(path, "lines", "deu")
    assert (document.sentences, document.lines) == (["Ein Satz. Noch einer.", "Der dritte."], [1, 3])
    assert document.language == "de"


def test_a_text_is_split_and_every_sentence_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One here. Two goes\non. Three\n\nA heading\n\nFour.\n", encoding="utf-8")
    document = read_document(path, "sentences", "en")
    assert document.sentences == ["One here.", "Two goes on.", "Three", "A heading", "Four."]
    assert document.lines == [1, 1, 2, 4, 6]


def test_thai_is_cut_at_spaces_into_clauses() -> None:
    clauses = ["ก" * 12 + " " + "ข" * 12, "ค" * 30, "ง" * 5]
    assert document_of_text(" ".join(clauses), "th").sentences == clauses
    assert document_of_text("ก ข\n\nค", "th").sentences == ["ก ข", "ค"]


def test_burmese_ends_its_sentences_with_its_own_sign() -> None:
    text = "ကောင်းပါသည်။ ၁.၂ ဒုတိယ၊ ဝါကျ။\n\nတတိယ"
    document = document_of_text(text)
    assert document.language == "my"
    assert document.sentences == ["ကောင်းပါသည်။", "၁.၂ ဒုတိယ၊ ဝါကျ။", "တတိယ"]
    assert document.lines == [1, 1, 3]


@pytest.mark.parametrize("content", ["", "\n \n"])
@pytest.mark.parametrize("split", ["lines", "sentences"])
def test_a_file_without_a_sentence_is_named(tmp_path: Path, content: str, split: str) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=r"empty.txt has no sentence: it is empty"):
        read_document(path, split)


def test_joined_sentences_have_a_space_where_their_script_has_one() -> None:
    assert joined(["Eins.", "Zwei."]) == "Eins. Zwei."
    assert joined(["我来。", "他去。", "ok", "ok"]) == "我来。他去。ok ok"
    assert joined(["첫째.", "둘째."]) == "첫째. 둘째."
    assert joined([]) == ""


def test_splitting_and_aligning_use_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some aligners ask a service for the language of every document."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    german = document_of_text("Die Katze schläft im Haus. Musik ist wichtig für Kinder.", None).sentences
    english = document_of_text("The cat sleeps in the house. Music matters to children.", None).sentences
    beads = align(german, english, encoder=load_encoder())
    assert [(bead.source, bead.target) for bead in beads] == [((0,), (0,)), ((1,), (1,))]
