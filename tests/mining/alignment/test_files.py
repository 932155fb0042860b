from __future__ import annotations

from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.document import Document
from embedsvc.mining.alignment.files import read_beads, write_beads

BEADS = [
    Bead((0,), (0, 1), 0.5, 0.75, "Eins.", "One. Two."),
    Bead((1,), (), source_text="Allein."),
    Bead((2,), (2,), 0.25, 0.5, "Drei.", "Three."),
]
DOCUMENTS = (
    Document(["Eins.", "Allein.", "Drei."], [1, 3, 4], "de"),
    Document(["One.", "Two.", "Three."], [2, 3, 9], "en"),
)
FILES = ("a.de", "a.en")


def test_a_table_has_every_bead_with_its_sentences_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "beads.tsv"
    assert write_beads(path, BEADS, DOCUMENTS, FILES) == 3
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    shown = [
        [row[name] for name in ("score", "cosine", "src_id", "tgt_id", "src_line", "tgt_line")]
        for row in rows
    ]
    assert shown == [
        ["0.500000", "0.750000", "0", "0,1", "1", "2"],
        ["", "", "1", "", "3", ""],
        ["0.250000", "0.500000", "2", "2", "4", "9"],
    ]
    assert [(row["src"], row["tgt"]) for row in rows] == [
        ("Eins.", "One. Two."), ("Allein.", ""), ("Drei.", "Three."),
    ]  # fmt: skip


def test_translation_memories_have_only_beads_with_two_sides(tmp_path: Path) -> None:
    path = tmp_path / "beads.tmx"
    assert write_beads(path, BEADS, DOCUMENTS, FILES) == 2
    written = path.read_text(encoding="utf-8")
    assert written.count("<tu ") + written.count("<tu>") == 2
    assert "Allein" not in written
    assert 'xml:lang="de"' in written


@pytest.mark.parametrize(("name", "format"), [("a.vecalign", None), ("a.txt", "vecalign")])
def test_vecalign_s_format_is_written_and_read_back(tmp_path: Path, name: str, format: str | None) -> None:
    path = tmp_path / name
    write_beads(path, BEADS, DOCUMENTS, FILES, format=format)
    assert path.read_text() == "[0]:[0, 1]:0.500000\n[1]:[]:0.000000\n[2]:[2]:0.250000\n"
    assert read_beads(path) == [(bead.source, bead.target) for bead in BEADS]


@pytest.mark.parametrize("line", ["0:1", "[0]", "[0]:[a]", "[-1]:[0]", "[0.5]:[0]", "[0]:[true]", "x"])
def test_a_line_that_is_no_bead_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gold"
    path.write_text(f"[0]:[0]\n\n{line}\n")
    with pytest.raises(InvalidInputError, match=r"gold line 3 is '.*'; expected such as \[0\]:\[0, 1\]"):
        read_beads(path)


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown kind of file '\.doc'"):
        write_beads(tmp_path / "a.doc", BEADS, DOCUMENTS, FILES)
    assert not list(tmp_path.iterdir())
