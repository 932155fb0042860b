"""The odds of many texts at once are those that the detector itself gives for each."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.language_odds import detectable_languages, language_odds
from embedsvc.languages import FOLDED_LABELS, identifier, normalize_language

TEXTS = [
    "Where is the nearest library, please?",
    "",
    "hello",
    "Где находится ближайшая библиотека?",
    "最近的图书馆在哪里?",
    "12345",
    "WO IST DIE NÄCHSTE BÜCHEREI?",
    "e\u0301te\u0301 " * 40,
    "a",
    "\ud800 x",
    "Gdje je najbliža knjižnica, molim vas?",
]
GROUPS = {"en": {"en"}, "zh": {"zh"}, "ar": {"ar"}, "hr": {"hr", "sr", "bs"}}


def detectors_odds(text: str, group: set[str]) -> float:
    """The likeliest other language over the sum of those of the group, from the detector's list of labels."""
    chances = Counter[str]()
    for label, probability in identifier().rank(text):
        if label != "zxx":
            chances[normalize_language(FOLDED_LABELS.get(label, label))] += probability
    own = sum(chances.pop(code) for code in group)
    return max(chances.values()) / max(own, 1e-30)


@pytest.mark.parametrize("language", GROUPS)
def test_odds_agree_with_the_detector_text_by_text(language: str) -> None:
    expected = [detectors_odds(text, GROUPS[language]) for text in TEXTS]
    np.testing.assert_allclose(language_odds(TEXTS, language), expected, rtol=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5))
def test_odds_of_any_text_agree(texts: list[str]) -> None:
    expected = [detectors_odds(text, GROUPS["en"]) for text in texts]
    np.testing.assert_allclose(language_odds(texts, "en"), expected, rtol=2e-3)


def test_order_and_number_of_texts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = language_odds(TEXTS, "en")
    monkeypatch.setattr("embedsvc.language_odds._TEXTS", 3)
    np.testing.assert_allclose(language_odds(TEXTS[::-1], "en")[::-1], whole, rtol=1e-4)
    assert language_odds([], "en").shape == (0,)


def test_odds_are_those_of_the_likeliest_other_language() -> None:
    sure, unsure = language_odds(["Where is the nearest library, please?", "hello"], "de")
    assert sure > 1000
    assert 1 <= unsure < 10
    assert language_odds(["Where is the nearest library, please?"], "en")[0] < 0.01


def test_languages_are_codes_and_only_those_that_are_recognised() -> None:
    assert {"en", "zh", "ar", "sr", "bs", "th"} <= detectable_languages()
    assert not {"und", "zxx", "yue", "arz", "fuv"} & detectable_languages()
