"""Each filter drops what it is for, keeps real sentences of every language, and is silent about nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.filters import FILTERS, SENTENCE_FILTERS, SentenceFilters, resolve_filters
from embedsvc.mining.ingest_options import IngestOptions


def reason(text: str, language: str | None = None, *filters: str, **limits: int) -> str | None:
    options = IngestOptions(language=language, filters=filters or SENTENCE_FILTERS, **limits)  # type: ignore[arg-type]
    return SentenceFilters(options).reasons([text])[0]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("default", FILTERS),
        (("default",), FILTERS),
        ("none", ()),
        ("", ()),
        ((), ()),
        ("copy, short", ("short", "copy")),
        (["language", "long", "long"], ("long", "language")),
    ],
)
def test_filters_are_named_and_ordered(given: str | list[str], names: tuple[str, ...]) -> None:
    assert resolve_filters(given) == names


@pytest.mark.parametrize("bad", ["langauge", ["short", "x"], "default,short", "none,short"])
def test_an_unknown_filter_is_named_with_the_known_ones(bad: str | list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve_filters(bad)
    assert caught.value.message.endswith(f"is unknown; choose default, none, or among {', '.join(FILTERS)}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcd", "short"),
        ("abcde", None),
        ("走吧", None),
        ("走", "short"),
        ("x" * 1001, "long"),
        ("ab " * 333 + "x", None),
        ("东" * 334, "long"),
        ("东西" * 166, None),
        ("12:30 — 14:00", "letters"),
        ("Nr. 1234 / 5678", "symbols"),
        ("Die 12 von 3456", None),
        ("नमस्ते दुनिया", None),
        ("བོད་ཡིག་གི་ཡི་གེ།", None),
        ("Inhalt ........ Seite", "repeats"),
        ("Inhalt ....... Seite eins", None),
        ("a        b und noch mehr", None),
        ("haaaaaaaallo", "repeats"),
    ],
)
def test_form_of_a_sentence(text: str, expected: str | None) -> None:
    assert reason(text, None, "long", "short", "letters", "symbols", "repeats") == expected


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Где находится ближайшая библиотека?", "de", "script"),
        ("Где находится ближайшая библиотека?", "sr-Cyrl", "language"),
        ("Где находится ближайшая библиотека?", "ru", None),
        ("Где купить iPhone 15 Pro Max?", "ru", None),
        ("Where is the nearest library, please?", "de", "language"),
        ("Where is the nearest library, please?", "en-GB", None),
        ("最近的图书馆在哪里呢,请问?", "ja", "language"),
        ("最近的图书馆在哪里呢,请问?", "zh-Hant", None),
        ("Gdje je najbliža knjižnica, molim vas?", "bs", None),
        ("Gdje se nalazi najbliža knjižnica u ovom gradu?", "cs", "language"),
        ("ที่ไหนคือห้องสมุดที่ใกล้ที่สุด", "th", None),
        ("Where is the nearest library, please?", "th", "script"),
        ("hello there", "de", "language"),
        ("hello", "de", None),  # too short to be sure
        ("Na klar.", "en", None),
        ("Berlin Mitte", "en", None),
    ],
)
def test_language_of_a_sentence(text: str, language: str, expected: str | None) -> None:
    assert reason(text, language) == expected


def test_the_first_reason_counts_and_the_rest_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(texts: list[str], _: str) -> NDArray[np.float32]:
        assert texts == [], "a dropped sentence was given to the detector"
        return np.empty(0, np.float32)

    monkeypatch.setattr("embedsvc.mining.filters.language_odds", refuse)
    assert reason("12", "de") == "short"
    assert reason("x" * 10_000_000, "de") == "long"
    assert reason("Где библиотека?", "de") == "script"
    # Nothing else that the detector knows is written in Thai: the script decides.
    assert reason("ที่ไหนคือห้องสมุดที่ใกล้ที่สุด", "th") is None
    with pytest.raises(AssertionError, match="given to the detector"):
        reason("ที่ไหนคือห้องสมุดที่ใกล้ที่สุด", "th", "language")


@pytest.mark.parametrize(
    ("language", "notes"),
    [
        ("de", []),
        (
            None,
            [
                "script: not checked; the option language was not given",
                "language: not checked; the option language was not given",
            ],
        ),
        ("tzm", ["language: not checked; the detector does not know 'tzm'"]),
        ("ace-Arab", ["language: not checked; the detector does not know 'ace-Arab'"]),
        ("sr-Latn", []),
        ("fuv", ["language: not checked; the detector does not know 'fuv'"]),
        (
            "tzl",
            [
                "script: not checked; no script is known for 'tzl'",
                "language: not checked; the detector does not know 'tzl'",
            ],
        ),
    ],
)
def test_what_is_not_checked_is_said(language: str | None, notes: list[str]) -> None:
    options = IngestOptions(language=language, filters=FILTERS)
    assert SentenceFilters(options).notes == notes
    assert SentenceFilters(IngestOptions(language=language, filters=("short",))).notes == []


@pytest.mark.slow
def test_fewer_than_one_in_a_hundred_flores_lines_of_any_language_is_dropped(evaluation_data: Path) -> None:
    for path in sorted((evaluation_data / "flores" / "text").glob("*.txt")):
        lines = path.read_text(encoding="utf-8").split("\n")[:200]
        filters = SentenceFilters(IngestOptions(language=path.stem, filters=SENTENCE_FILTERS))
        dropped = [found for found in filters.reasons([line for line in lines if line]) if found]
        assert len(dropped) <= 2, (path.stem, dropped)


@pytest.mark.slow
def test_of_lines_in_another_language_nearly_all_are_dropped(evaluation_data: Path) -> None:
    folder = evaluation_data / "flores" / "text"
    caught = total = 0
    for path in sorted(folder.glob("*.txt")):
        lines = path.read_text(encoding="utf-8").split("\n")[:20]
        for wanted in ("en", "de", "ru", "zh", "sw", "vi"):
            if normalize_language(path.stem) != wanted:
                filters = SentenceFilters(IngestOptions(language=wanted, filters=SENTENCE_FILTERS))
                caught += sum(found is not None for found in filters.reasons(lines))
                total += len(lines)
    assert caught / total > 0.99
