from __future__ import annotations

from embedsvc.mining.duplicates import distinct_rows, duplicate_key


def test_first_occurrence_stands_for_all() -> None:
    assert distinct_rows(["b", "a", "b", "c", "a"]) == [0, 1, 3]


def test_composition_and_whitespace_do_not_make_texts_distinct() -> None:
    assert distinct_rows(["caf\u00e9 au lait", "cafe\u0301 au lait", " caf\u00e9\u00a0 au\u3000lait "]) == [0]


def test_case_and_punctuation_and_compatibility_forms_do() -> None:
    assert distinct_rows(["Ja", "ja", "ja.", "x²", "x2"]) == [0, 1, 2, 3, 4]


def test_key_by_hand() -> None:
    assert duplicate_key("\u3000e\u0301  b ") == "\u00e9 b"
