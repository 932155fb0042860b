from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.collections.lexical import (
    MAX_WORD,
    TOKENIZE,
    analyze,
    match_expression,
    query_terms,
)

LANGUAGES = st.sampled_from(
    [None, "und", "en", "de", "tr", "vi", "ar", "fa", "hi", "ru", "el", "sr", "zh", "th"]
)
WORDS = (
    "running straße Οδός ISTANBUL kız любимые الكتاب می‌خواهم हिन्दी việt 東京タワー ภาษาไทย 서울에서 ١٢٣"
    ' e\u0301 a"b * NEAR AND'
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=12),  # lone surrogates too
    st.lists(st.sampled_from(WORDS.split()), max_size=8).map(" ".join),
)


@contextlib.contextmanager
def index(texts: list[tuple[str, str | None]]) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE VIRTUAL TABLE t USING fts5(terms, content='', tokenize='{TOKENIZE}')")
        for row, (text, language) in enumerate(texts):
            database.execute("INSERT INTO t (rowid, terms) VALUES (?, ?)", (row, analyze(text, language)))
        yield database


def found(database: sqlite3.Connection, query: str, language: str | None) -> list[int]:
    expression = match_expression(query, language)
    if expression is None:
        return []
    return [
        row for (row,) in database.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank", (expression,))
    ]


def scores(database: sqlite3.Connection, expression: str | None) -> dict[int, float]:
    return dict(database.execute("SELECT rowid, rank FROM t WHERE t MATCH ?", (expression,)))


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "Running, snake_case: don't!", "run running snake case don t"),
        (None, "Running, naïve Œuvre ﬁne", "running naive oeuvre fine"),
        ("de", "Straßen", "strass strassen"),
        ("el", "ΟΔΟΣ Οδός", "οδ οδοσ οδ οδοσ"),
        ("tr", "KIZ", "kiz"),
        ("tr", "İstanbul", "istanbul"),
        ("ru", "ёлки", "елк елки"),
        ("vi", "Tiếng Việt", "tiếng tieng việt viet"),
        (None, "كِتَابٌ أحمد إلى ـــ مدرســة ١٢٣", "كتاب احمد الي مدرسه 123"),
        (None, "می\u200cخواهم", "مي خواهم"),
        (None, "שָׁלוֹם", "שלום"),
        (None, "हिन्दी क्\u200dष", "हिन्दी क्ष"),
        (None, "東京 ﾀﾜｰ", "東 京 東京 タ ワ ー タワ ワー"),
        (None, "葛\U000e0100城😀‼️1️⃣", "1 葛 城 葛城"),
        (None, "iPhone15は", "iphone15 は"),
        (None, "น้ําที่๑๒", "12 น้ํา ที่ น้ําที่"),
        (None, "ខ្មែរ", "ខ្មែ រ ខ្មែរ"),
        (None, "서울에서 왔다", "서 울 에 서 서울 울에 에서 왔 다 왔다"),
        (None, "soft\u00adhyphen ＡＢＣ", "softhyphen abc"),
        (None, "\x00 \ud800 ... 😀", ""),
    ],
)  # fmt: skip
def test_terms_by_hand(language: str | None, text: str, terms: str) -> None:
    assert analyze(text, language) == terms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("Ｗｅｂ", "web"),
        ("ΜΆΙΟΣ", "μάιος"),
        ("ı", "I"),
        ("אַבָּא", "אבא"),
        ("کتاب", "كتاب"),
        ("٤٢", "42"),
    ],
)
def test_spellings_of_one_word_have_the_same_terms(one: str, other: str) -> None:
    assert analyze(one, None) == analyze(other, None) != ""


def test_case_does_not_decide_between_ascii_and_other_texts() -> None:
    """A Turkish text in ASCII is not lowered as English: KIZ is kız, whatever else the text holds."""
    assert analyze("KIZLAR", "tr") == analyze("KIZLAR ş", "tr").removesuffix(" s") == analyze("kızlar", "tr")


def test_long_words_are_cut_and_still_found() -> None:
    for word in ("x" * 100_000, "é" * 100_000):
        assert len(analyze(word, "en")) == MAX_WORD
        with index([(f"a {word} b", "en")]) as database:
            assert found(database, word, "en") == [0]


def test_another_form_of_a_word_is_found_in_the_language_of_both() -> None:
    with index(
        [("Die Häuser sind alt", "de"), ("He was running", "en"), ("любимые книги", "ru")]
    ) as database:
        assert found(database, "Haus", "de") == [0]
        assert found(database, "runs", "en") == [1]
        assert found(database, "книга", "ru") == [2]


@pytest.mark.parametrize("language", [None, "es", "de", "tr", "ar"])
def test_a_word_is_found_though_the_language_of_the_query_is_unknown_or_wrong(language: str | None) -> None:
    with index([("several universities", "en"), ("něco jiného", "cs")]) as database:
        assert found(database, "universities", language) == [0]
        assert found(database, "jineho", language) == [1]


def test_one_character_and_a_part_of_a_word_are_found_where_there_are_no_spaces() -> None:
    with index([("黑猫在家。", "zh"), ("집에서 서울까지", "ko"), ("ภาษาไทยง่าย", "th")]) as database:
        assert found(database, "猫", "zh") == [0]
        assert found(database, "서울", "ko") == [1]
        assert found(database, "집", None) == [1]
        assert found(database, "ไทย", "th") == [2]


def test_a_query_without_terms_has_no_expression() -> None:
    for query in ("", " ", '"*-()', "😀", "\x00", "َ"):
        assert match_expression(query, "en") is None


@given(
    st.lists(
        st.lists(st.sampled_from(["run", "running", "other", "walks"]), max_size=4), min_size=8, max_size=14
    )
)
@settings(max_examples=60)
def test_a_word_in_both_forms_counts_once(texts: list[list[str]]) -> None:
    """bm25 of a text is that of the primary form; only a text without it is scored for the plain form."""
    with index([]) as database:
        rows = [(row, " ".join(text)) for row, text in enumerate(texts)]
        database.executemany("INSERT INTO t (rowid, terms) VALUES (?, ?)", rows)
        for query, primary in [("running", "run"), ("walks", "walk"), ("runs", "run")]:
            expected = scores(database, f'"{query}"') | scores(database, f'"{primary}"')
            assert scores(database, match_expression(query, "en")) == pytest.approx(expected)


def test_rarest_terms_are_taken_within_the_budget() -> None:
    counts = {"the": 900, "of": 800, "cat": 40, "zebra": 3, "nowhere": 0}
    expression = match_expression("the nowhere cat of zebra", None, frequency=counts.__getitem__, budget=50)
    assert expression == '"nowhere" OR "zebra" OR "cat"'
    everything = match_expression("the of", None, frequency=counts.__getitem__, budget=1700)
    assert everything == '"of" OR "the"'


def test_one_term_that_exists_is_taken_however_frequent() -> None:
    counts = {"the": 900, "of": 800, "nowhere": 0}
    assert (
        match_expression("the nowhere of", None, frequency=counts.__getitem__, budget=1)
        == '"nowhere" OR "of"'
    )


def test_a_query_of_a_thousand_words_is_searched() -> None:
    words = [f"walking{number}s" for number in range(1000)]
    with index([(word, "en") for word in words[::100]]) as database:
        assert sorted(found(database, " ".join(words), "en")) == list(range(10))


def test_threads_get_the_same_terms() -> None:
    words = [f"running{number}s walked{number} größer" for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda word: analyze(word, "de"), words * 4))
    assert several == [" ".join(analyze(part, "de") for part in word.split()) for word in words] * 4


@settings(max_examples=60)
@given(TEXTS, TEXTS, LANGUAGES, LANGUAGES)
def test_any_text_is_indexed_found_by_its_words_and_deleted(
    text: str, query: str, language: str | None, other: str | None
) -> None:
    with index([(text, language)]) as database:
        found(database, query, other)  # whatever the query, no syntax error
        terms = analyze(text, language).split()
        for asked in (language, other):
            assert found(database, text, asked) == ([0] if terms else [])
        for term in query_terms(query, other):
            if term.primary in terms:
                assert found(database, query, other) == [0]
        database.execute(
            "INSERT INTO t (t, rowid, terms) VALUES ('delete', 0, ?)", (analyze(text, language),)
        )
        assert found(database, text, language) == []
        database.execute("INSERT INTO t (t) VALUES ('integrity-check')")


@settings(max_examples=40)
@given(TEXTS, LANGUAGES)
def test_terms_are_ready_for_the_tokenizer(text: str, language: str | None) -> None:
    """FTS5 splits at spaces and nowhere else, and changes no term."""
    with index([(text, language)]) as database:
        database.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, 'row')")
        stored = {term for (term,) in database.execute("SELECT term FROM v")}
        assert stored == set(analyze(text, language).split())
