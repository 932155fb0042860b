"""Texts in twelve scripts and spellings: words drawn by Zipf's law from a vocabulary per language."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_WORDS = 20_000
_POWER = 1.0  # the r-th word is drawn with a chance that falls with 1/r
_LATIN = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Script:
    """How a language is written: its letters, the lengths of words, what stands between them."""

    letters: str
    shortest: int
    longest: int
    space: str = " "


def _letters(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))


LANGUAGES = {  # most documents first, as `vectors.SHARES`
    "en": Script(_LATIN, 2, 9),
    "de": Script(_LATIN + "äöüß", 3, 12),
    "es": Script(_LATIN + "áéíóúñ", 2, 10),
    "fr": Script(_LATIN + "àéèêç", 2, 10),
    "ru": Script(_letters(0x430, 0x44F), 2, 11),
    "zh": Script(_letters(0x4E00, 0x5200), 1, 3, ""),
    "ja": Script(_letters(0x3042, 0x3093) + _letters(0x4E00, 0x4F00), 1, 4, ""),
    "ar": Script(_letters(0x627, 0x63A) + _letters(0x641, 0x64A), 2, 8),
    "hi": Script(_letters(0x915, 0x939), 2, 7),
    "tr": Script(_LATIN + "çğıöşü", 3, 12),
    "th": Script(_letters(0xE01, 0xE2E), 2, 7, ""),
    "sw": Script(_LATIN, 3, 10),
}


def make_texts(language: str, count: int, characters: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` texts of about ``characters`` characters in a language."""
    script = LANGUAGES[language]
    vocabulary = _vocabulary(language)
    width = (script.shortest + script.longest) / 2 + len(script.space)
    per_text = max(round(characters / width), 1)
    chances = np.arange(1, _WORDS + 1) ** -_POWER
    drawn = rng.choice(_WORDS, (count, per_text), p=chances / chances.sum())
    return [script.space.join([vocabulary[word] for word in row]) for row in drawn.tolist()]


def _vocabulary(language: str) -> list[str]:
    """Return distinct words, the same for a document's text and a query's."""
    script = LANGUAGES[language]
    rng = np.random.default_rng(list(language.encode()))
    letters = np.array(list(script.letters))
    words: dict[str, None] = {}
    while len(words) < _WORDS:
        length = int(rng.integers(script.shortest, script.longest + 1))
        words.update(dict.fromkeys("".join(row) for row in rng.choice(letters, (1_000, length))))
    return list(words)[:_WORDS]
