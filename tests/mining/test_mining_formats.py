from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.mining.formats import read_sentences, write_pairs
from embedsvc.mining.mine import MinedPair

PAIRS = [MinedPair(1.25, 1, 0, "Guten Tag", "Good day"), MinedPair(1.0625, 0, 1, "Ja »so«", '"Yes"')]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts.txt"


def test_blank_lines_are_skipped_but_counted(path: Path) -> None:
    path.write_bytes("\ufeffeins\r\n\n \u3000\nzwei ".encode())
    sentences = read_sentences(path)
    assert (sentences.texts, sentences.line_numbers, sentences.blank_lines) == (["eins", "zwei "], [1, 4], 2)


def test_unicode_line_ends_stay_inside_their_line(path: Path) -> None:
    path.write_text("a\u2028b\u0085c\x0bd\ne\n", encoding="utf-8", newline="")
    assert read_sentences(path).texts == ["a\u2028b\u0085c\x0bd", "e"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n17\tGuten Tag\n", r"texts\.txt line 2 has a tab; .* tr '\\t' ' ' < .*texts\.txt"),
        (b"old\rmac\r", r"texts\.txt line 1 has a carriage return; .* tr '\\r' ' '"),
        (b"", r"texts\.txt has no sentence: it is empty$"),
        (b"\n  \n", r"texts\.txt has no sentence: it is empty, or all lines are blank"),
        (b"ok\nna\xefve\n", r"texts\.txt line 2: byte 0xef at position 2 is not UTF-8"),
        (b"PK\x03\x04\x00\x00", r"texts\.txt line 1: a NUL byte"),
    ],
)
def test_bad_file_is_refused_naming_file_and_line(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_sentences(path)


def test_missing_file_is_not_found(path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file at .*texts\.txt"):
        read_sentences(path)


def test_pairs_are_score_source_target(path: Path) -> None:
    write_pairs(path, PAIRS)
    assert path.read_text(encoding="utf-8") == '1.250000\tGuten Tag\tGood day\n1.062500\tJa »so«\t"Yes"\n'


def test_line_numbers_come_as_last_columns(path: Path) -> None:
    write_pairs(path, PAIRS, line_numbers=([10, 20], [30, 40]))
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row[3:] for row in rows] == [["20", "30"], ["10", "40"]]


def test_failed_write_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    path.write_text("old")

    class Interrupted(list[MinedPair]):
        def __iter__(self) -> Iterator[MinedPair]:
            yield PAIRS[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(path, Interrupted(PAIRS))
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
