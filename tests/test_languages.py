"""One code per language, however it is written; texts of many languages and scripts are recognised."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.languages import detect_language, normalize_language, normalize_languages


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("EN", "en"),
        ("en-US", "en"),
        ("eng", "en"),
        ("pt_BR", "pt"),
        ("zh-Hans", "zh"),
        ("zho_Hans", "zh"),
        ("cmn", "zh"),
        ("yue", "yue"),
        ("ger", "de"),
        ("deu", "de"),
        ("arb", "ar"),
        ("arz", "arz"),
        ("swh", "sw"),
        ("iw", "he"),
        ("in", "id"),
        ("nob", "no"),
        ("nb-NO", "no"),
        ("nn", "nn"),
        ("fil", "tl"),
        ("sr-Latn", "sr"),
        ("ceb", "ceb"),
        ("und", "und"),
    ],
)
def test_every_spelling_of_a_language_becomes_one_code(given: str, code: str) -> None:
    assert normalize_language(given) == code
    assert normalize_language(code) == code


@pytest.mark.parametrize(
    "bad", ["", " ", "english", "xx", "zzz", "e", "en--US", "en-", "x-foo", "ё", None, 3, ["en"]]
)
def test_what_is_no_language_is_named(bad: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        normalize_language(bad)
    assert caught.value.message.startswith(f"{bad!r} is not a language code")


def test_list_of_languages_is_checked_and_deduplicated() -> None:
    assert normalize_languages(["en-GB", "eng", "de"]) == {"en", "de"}
    with pytest.raises(InvalidInputError, match="not 'en'"):
        normalize_languages("en")
    with pytest.raises(InvalidInputError, match="empty list"):
        normalize_languages([])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Where is the nearest library, please?", "en"),
        ("Wo finde ich die nächste Bücherei, bitte?", "de"),
        ("¿Dónde está la biblioteca más cercana?", "es"),
        ("Где находится ближайшая библиотека?", "ru"),
        ("最近的图书馆在哪里?", "zh"),
        ("一番近い図書館はどこですか。", "ja"),
        ("가장 가까운 도서관이 어디에 있습니까?", "ko"),
        ("أين تقع أقرب مكتبة من فضلك؟", "ar"),
        ("निकटतम पुस्तकालय कहाँ है?", "hi"),
        ("Maktaba ya karibu iko wapi, tafadhali?", "sw"),
        ("Thư viện gần nhất ở đâu?", "vi"),
        ("Kütüphane saat kaçta açılıyor?", "tr"),
    ],
)
def test_language_of_a_sentence_is_recognised(text: str, code: str) -> None:
    assert detect_language(text) == code


@pytest.mark.parametrize("text", ["", "  \n", "12345", "!?…", "😀😀", "a", "hello", "\ud800"])
def test_text_that_says_too_little_is_undecided(text: str) -> None:
    assert detect_language(text) == "und"


def test_detection_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert detect_language("Where is the nearest library, please?") == "en"


def test_most_flores_lines_are_recognised(evaluation_data: Path) -> None:
    folder = evaluation_data / "flores" / "text"
    stems = (
        "eng_Latn deu_Latn spa_Latn rus_Cyrl zho_Hans jpn_Jpan arb_Arab hin_Deva swh_Latn vie_Latn yor_Latn"
    )
    for stem in stems.split():
        lines = (folder / f"{stem}.txt").read_text(encoding="utf-8").splitlines()[:50]
        right = sum(detect_language(line) == normalize_language(stem) for line in lines)
        assert right >= 47, f"{stem}: {right} of 50"
