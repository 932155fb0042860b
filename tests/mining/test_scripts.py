"""Scripts of languages come from CLDR; characters are counted by what they are."""

from __future__ import annotations

from collections import Counter

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.mining.scripts import CharacterKinds, scripts_of, split_tag, text_width


@pytest.mark.parametrize(
    ("tag", "scripts"),
    [
        ("de", "Latn"),
        ("rus_Cyrl", "Cyrl"),
        ("sr", "Cyrl Latn"),
        ("sr-Latn", "Latn"),
        ("uz", "Arab Cyrl Latn"),
        ("ja", "Hani Hira Kana"),
        ("ko", "Hang Hani"),
        ("zh-TW", "Bopo Hani"),
        ("zho_Hans", "Bopo Hani"),
        ("crh", "Cyrl Latn"),
        ("ace_Arab", "Arab"),
        ("tzl", ""),
    ],
)
def test_a_language_has_all_the_scripts_it_is_written_in(tag: str, scripts: str) -> None:
    assert scripts_of(*split_tag(tag)) == frozenset(scripts.split())


def test_what_is_no_language_has_no_scripts() -> None:
    with pytest.raises(InvalidInputError, match="'xx' is not a language code"):
        split_tag("xx")


def test_every_character_has_one_kind() -> None:
    text = "Ab1 ,é东ー한हिд½\u0301😀"
    for scripts, expected in [
        ({"Latn"}, "LLD .LVWVFFFDL."),
        ({"Hani", "Hira", "Kana"}, "FFD .FWWVFFFDL."),
        ({"Deva"}, "FFD .FVWVLLFDL."),
        (set(), "LLD .LWWWLLLDL."),
    ]:
        kinds = text.translate(CharacterKinds(frozenset(scripts)))
        assert kinds == expected, scripts
        assert Counter(kinds).total() == len(text)


def test_wide_characters_count_as_three() -> None:
    assert text_width("abc d") == 5
    assert text_width("东京 x") == 8
    assert text_width("カタカナ") == 12
