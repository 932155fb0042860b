"""Passages: what they cover, where they are cut, and that the encoder takes every one of them whole."""

from __future__ import annotations

import json
import time
import unicodedata
from functools import cache

import numpy as np
import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc.collections import passages
from embedsvc.collections.passages import PassageSplitter, Span
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.encoders.static_table import StaticTableRuntime
from embedsvc.errors import InvalidInputError, TextTooLongError
from embedsvc.model_folder import BUNDLED, open_model_folder
from embedsvc.sentences import sentence_spans
from training.static_export import write_static_folder


class LimitedRuntime(StaticTableRuntime):
    """A static table with the limit and the two special tokens of a transformer."""

    max_tokens = 18
    special_tokens = 2


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """An encoder that counts words and full stops, takes 18, and has a document prompt of two."""
    folder = tmp_path_factory.mktemp("models") / "words"
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, ".": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    write_static_folder(folder, np.ones((2, 4), np.float32), tokenizer.to_str(), matryoshka_dimensions=[])
    general = folder / "config_sentence_transformers.json"
    general.write_text(json.dumps({"prompts": {"document": "passage: "}}))
    opened = open_model_folder(folder)
    return Encoder(opened, LimitedRuntime(opened))


@cache
def subwords() -> Encoder:
    """The bundled model's subwords: a token count depends on what stands around it."""
    return load_encoder(BUNDLED)


def cut(splitter: PassageSplitter, text: str, language: str = "en") -> list[str]:
    (spans,) = splitter.split([text], [language])
    return [text[start:stop] for start, stop in spans]


def sentences(*lengths: int) -> str:
    """Sentences of so many tokens, the full stop included: "Aword aword. Bword bword bword." """
    made = []
    for number, length in enumerate(lengths):
        word = chr(ord("a") + number) + "word"
        made.append(" ".join([word] * (length - 1)).capitalize() + ".")
    return " ".join(made)


def test_sentences_fill_a_passage_up_to_the_limit(words: Encoder) -> None:
    first, second, third, fourth = (f"{part.strip('. ')}." for part in sentences(8, 8, 8, 8).split(". "))
    text = " ".join([first, second, third, fourth])
    # 18 tokens less the prompt's two ("passage", ":") are two sentences of eight.
    assert cut(PassageSplitter(words, overlap_tokens=0), text) == [f"{first} {second}", f"{third} {fourth}"]
    assert cut(PassageSplitter(words, max_tokens=19, overlap_tokens=0), text) == [
        first,
        second,
        third,
        fourth,
    ]


def test_neighbours_share_whole_sentences_up_to_the_overlap(words: Encoder) -> None:
    aa, bb, cc, dd, ee, ff = sentences(5, 3, 5, 4, 7, 3).split(". ")
    text = f"{aa}. {bb}. {cc}. {dd}. {ee}. {ff}"
    assert cut(PassageSplitter(words, overlap_tokens=8), text) == [
        f"{aa}. {bb}. {cc}.",
        f"{bb}. {cc}. {dd}.",
        f"{dd}. {ee}. {ff}",
    ]
    assert cut(PassageSplitter(words, overlap_tokens=4), text) == [f"{aa}. {bb}. {cc}.", f"{dd}. {ee}. {ff}"]


def test_text_that_just_fits_is_one_passage_with_its_edges(words: Encoder) -> None:
    fits = "  " + "w " * 15 + "w\n"
    splitter = PassageSplitter(words)
    assert splitter.split([fits, fits + "w"], ["en", "en"]) == [[(0, 34)], [(2, 33), (18, 35)]]
    assert splitter.split([], []) == []


def test_too_long_sentence_is_cut_between_words_and_shares_words(words: Encoder) -> None:
    text = " ".join(f"w{i}" for i in range(40))
    assert [piece.split()[:: len(piece.split()) - 1] for piece in cut(PassageSplitter(words), text)] == [
        ["w0", "w15"],
        ["w8", "w23"],
        ["w16", "w31"],
        ["w24", "w39"],
    ]


def test_model_without_limit_splits_only_when_asked() -> None:
    text = "One two three. Four five six. " * 40
    assert PassageSplitter(subwords()).split([text], ["en"]) == [[(0, len(text))]]
    assert len(cut(PassageSplitter(subwords(), max_tokens=64), text)) > 4


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("th", "เมื่อวันจันทร์ที่ผ่านมานักวิทยาศาสตร์ประกาศว่าได้ประดิษฐ์เครื่องมือตรวจวินิจฉัยแบบใหม่"),
        ("zh", "周一斯坦福大学医学院的科学家宣布他们发明了一种可以将细胞按类型分类的新型诊断工具"),
        ("hi", "स्टैनफ़ोर्ड_यूनिवर्सिटी_स्कूल_ऑफ़_मेडिसिन_के_वैज्ञानिकों_ने_एक_नए_डायग्नोस्टिक"),
        ("en", "👨‍👩‍👧‍👦🇩🇪🇫🇷👍🏽" * 8),
        ("en", "e\u0301a\u0308o\u0302\u0323" * 20),
    ],
)
def test_scripts_without_spaces_are_cut_between_graphemes(language: str, text: str) -> None:
    (spans,) = PassageSplitter(subwords(), max_tokens=16).split([text], [language])
    seams = {found.start() for found in regex.finditer(r"\X", text)} | {len(text)}
    assert len(spans) > 2
    assert {position for span in spans for position in span} <= seams


def test_one_grapheme_longer_than_the_limit_is_cut_between_characters() -> None:
    splitter = PassageSplitter(subwords(), max_tokens=16, overlap_tokens=0)
    text = "e" + "\u0301\u0308" * 100
    assert "".join(cut(splitter, text)) == text


def test_character_of_more_tokens_than_the_limit_is_refused() -> None:
    with pytest.raises(TextTooLongError, match=r"the character 'ﷺ' alone has \d+ tokens.*the limit is 3"):
        PassageSplitter(subwords(), max_tokens=3).split(["good ﷺ"], ["ar"])


def test_no_room_for_text_is_refused(words: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="the prompt has 2 tokens; the limit is 2, text included"):
        PassageSplitter(words, max_tokens=4)
    with pytest.raises(InvalidInputError, match="max_tokens = 2; at least 3 expected"):
        PassageSplitter(words, max_tokens=2)
    with pytest.raises(InvalidInputError, match="overlap_tokens = -1; it must be at least 0"):
        PassageSplitter(words, overlap_tokens=-1)


def test_languages_stand_beside_their_texts(words: Encoder) -> None:
    german, french = f"Wir kamen am 3. Oktober. {sentences(11)}", sentences(9, 8)
    splitter = PassageSplitter(words, overlap_tokens=0)
    both = splitter.split([french, "kurz", german], ["fr", "de", "de"])
    assert both == [splitter.split([french], ["fr"])[0], [(0, 4)], splitter.split([german], ["de"])[0]]
    assert [german[start:stop] for start, stop in both[2]] == [
        "Wir kamen am 3. Oktober.",
        sentences(11),
    ]


def greedy(units: list[Span], lengths: list[int], room: int, overlap: int) -> list[Span]:
    """The definition, unit by unit."""
    found, first = [], 0
    while True:
        end = first + 1
        while end < len(units) and sum(lengths[first : end + 1]) <= room:
            end += 1
        found.append(Span(units[first].start, units[end - 1].stop))
        if end == len(units):
            return found
        back = end
        while back - 1 > first and sum(lengths[back - 1 : end]) <= overlap:
            if sum(lengths[back - 1 : end + 1]) > room:
                break
            back -= 1
        first = back


@given(st.lists(st.integers(2, 14), min_size=1, max_size=40), st.integers(0, 8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packing_is_the_greedy_one(words: Encoder, lengths: list[int], overlap: int) -> None:
    text = " ".join("Word" + " word" * (length - 2) + "." for length in lengths)
    units = sentence_spans(text, "en")
    assert len(units) == len(lengths)
    expected = greedy(units, lengths, 16, overlap) if sum(lengths) > 16 else [(0, len(text))]
    assert PassageSplitter(words, overlap_tokens=overlap).split([text], ["en"]) == [expected]


PIECES = [
    "a",
    "word",
    ". ",
    "。",
    " ",
    "\n\n",
    "中",
    "ไท",
    "\u0301",
    "👩‍👧",
    "ﷺ",
    "㌖",
    "“",
    "가",
    "??",
    "Dr. ",
    "İ",
    "\u200b",
]
text_strategy = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=120).map("".join)


@given(
    st.lists(text_strategy.filter(str.strip), min_size=1, max_size=4), st.integers(20, 60), st.integers(0, 40)
)
@settings(max_examples=80, deadline=None)
def test_passages_cover_the_text_in_order_and_fit(texts: list[str], most: int, overlap: int) -> None:
    encoder = subwords()
    found = PassageSplitter(encoder, most, overlap).split(texts, ["en"] * len(texts))
    for text, spans in zip(texts, found, strict=True):
        tokens = [len(ids) for ids in encoder.runtime.tokenize([text[start:stop] for start, stop in spans])]
        assert max(tokens) <= most
        if len(spans) == 1 and spans[0] == (0, len(text)):
            continue
        assert len(encoder.runtime.tokenize([text])[0]) > most
        assert all(text[start:stop] == text[start:stop].strip() != "" for start, stop in spans)
        starts, stops = zip(*spans, strict=True)
        assert list(starts) == sorted(set(starts))
        assert list(stops) == sorted(set(stops))
        covered = {position for span in spans for position in range(*span)}
        assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


def test_encoder_takes_every_passage(words: Encoder) -> None:
    text = sentences(5, 9, 30, 2, 16, 17, 1 + 16)
    pieces = cut(PassageSplitter(words), text)
    assert len(words.encode(pieces, prompt_name=words.document_prompt_name)) == len(pieces) > 6
    with pytest.raises(TextTooLongError):
        words.encode([text], prompt_name=words.document_prompt_name)


def test_fast_path_knows_every_character_that_grows_more_than_threefold() -> None:
    for code in range(0x30000):  # no character above is another when normalised
        character = chr(code)
        if unicodedata.is_normalized("NFKD", character) or 0xD800 <= code < 0xE000:
            continue
        most = max(len(unicodedata.normalize(form, character).encode()) for form in ("NFD", "NFKC", "NFKD"))
        if most > passages._MOST_GROWTH * len(character.encode()):
            assert passages._GROWS_MORE.search(character), hex(code)
            assert most <= 11 * len(character.encode())


def test_passage_within_another_is_left_out() -> None:
    spans = [Span(6, 10), Span(0, 6), Span(5, 12), Span(0, 6)]
    assert passages._in_order(spans) == [Span(0, 6), Span(5, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "word ", "中", "\u0301", "“a. ", "👩\u200d"])
def test_a_million_characters_take_bounded_time(unit: str) -> None:
    text = (unit * 1_000_000)[:999_999] + "x"
    begin = time.process_time()
    (spans,) = PassageSplitter(subwords(), max_tokens=128).split([text], ["en"])
    assert spans[-1].stop == len(text)
    assert time.process_time() - begin < 60
