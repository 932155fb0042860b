"""Sentences: exact offsets, in many scripts, in linear time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc import sentences
from embedsvc.sentences import Span, sentence_spans


def split(text: str, language: str) -> list[str]:
    return [text[start:stop] for start, stop in sentence_spans(text, language)]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Dr. Smith paid 3.50 dollars.", "He left!", "Why?"]),
        ("de", ["Am 3. Oktober ist Feiertag.", "Alle haben z.B. frei."]),
        ("ar", ["كيف حالك؟", "أنا بخير."]),
        ("hi", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("my", ["ဒါက စာကြောင်းတစ်ခု။", "ဒါက နောက်တစ်ခု။"]),
        ("am", ["ይህ ዓረፍተ ነገር ነው።", "ይህ ሌላ ነው።"]),
        ("hy", ["Սա նախադասություն է։", "Սա մյուսն է։"]),
        ("km", ["នេះជាប្រយោគ។", "នេះជាប្រយោគមួយទៀត។"]),
        ("bo", ["འདི་ཚིག་གཅིག་རེད།", "འདི་གཞན་ཞིག་རེད།"]),
        ("xx", ["No such language.", "It goes on."]),
    ],
)
def test_sentences_end_at_the_marks_of_their_script(language: str, expected: list[str]) -> None:
    assert split(" ".join(expected), language) == expected


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_sentences_need_no_space_between_them(language: str) -> None:
    assert split("今日は。明日は？「はい。」昨日。", language)[:2] == ["今日は。", "明日は？"]


def test_offsets_count_characters_and_leave_white_space_out() -> None:
    assert sentence_spans("  𝒳 is big.\n\n Y  is.\t", "en") == [Span(2, 11), Span(14, 20)]
    assert sentence_spans(" \n ", "en") == sentence_spans("", "en") == []


def test_blank_line_ends_a_sentence_and_a_line_break_does_not() -> None:
    assert split("a title\n\nit goes\non here", "en") == ["a title", "it goes\non here"]


def test_long_text_has_the_sentences_of_its_parts() -> None:
    parts = [
        f"Sentence number {i} says “so Dr. No and {'very ' * (i % 400)}much” or not." for i in range(400)
    ]
    assert len(" ".join(parts)) > 20 * sentences._BLOCK_CHARACTERS
    assert split(" ".join(parts), "en") == parts


def test_sentence_longer_than_a_block_stays_whole() -> None:
    long = "word " * (sentences._BLOCK_CHARACTERS // 2) + "end."
    assert split(f"Before it. {long} After it.", "en") == ["Before it.", long, "After it."]


@given(
    st.text(st.sampled_from('aB .!?\n\r\t"“”()。？།។𝒳\u0301\u2028中'), max_size=200),
    st.sampled_from(["en", "ja", "bo"]),
)
@settings(max_examples=150, deadline=None)
def test_sentences_hold_everything_but_white_space_once(text: str, language: str) -> None:
    found = sentence_spans(text, language)
    flat = [position for span in found for position in span]
    assert flat == sorted(flat)
    assert all(text[start:stop] == text[start:stop].strip() != "" for start, stop in found)
    assert "".join("".join(text[start:stop].split()) for start, stop in found) == "".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", ".", "“a. ", "\n", "a! ", "Dr. ", "。", "(a. ", "'a. ", "«a. "])
def test_a_million_characters_take_bounded_time(unit: str) -> None:
    text = (unit * 1_000_000)[:1_000_000]
    begin = time.process_time()
    sentence_spans(text, "en")
    assert time.process_time() - begin < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "least"),
    [
        ("eng_Latn", 0.92),
        ("deu_Latn", 0.89),
        ("rus_Cyrl", 0.91),
        ("arb_Arab", 0.92),
        ("hin_Deva", 0.88),
        ("zho_Hans", 0.88),
        ("jpn_Jpan", 0.89),
        ("amh_Ethi", 0.88),
        ("khm_Khmr", 0.75),
    ],
)
def test_joined_lines_are_found_again(evaluation_data: Path, code: str, least: float) -> None:
    """F1 of the ends of 1,004 FLORES lines, joined by twenties; some lines are two sentences."""
    lines = (evaluation_data / "flores" / "text" / f"{code}.txt").read_text(encoding="utf-8").splitlines()
    glue = "" if code[:3] in ("zho", "jpn") else " "
    hits = guesses = truths = 0
    for begin in range(0, len(lines), 20):
        part = [line.strip() for line in lines[begin : begin + 20]]
        true = {len(glue.join(part[: i + 1])) for i in range(len(part) - 1)}
        found = {stop for _, stop in sentence_spans(glue.join(part), code[:3])[:-1]}
        hits, guesses, truths = hits + len(true & found), guesses + len(found), truths + len(true)
    assert 2 * hits / (guesses + truths) >= least
