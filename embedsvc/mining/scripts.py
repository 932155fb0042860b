"""Writing systems: which ones a language is written in, and of what kind each character of a text is."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import lru_cache
from typing import Any

import regex
from langcodes import Language
from langcodes.data_dicts import LIKELY_SUBTAGS

from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language

# Scripts of ISO 15924 that are several of Unicode's.
_PARTS = {
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Hanb": ("Hani", "Bopo"),
    "Hrkt": ("Hira", "Kana"),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Jamo": ("Hang",),
}
# In use beside those that CLDR's likely subtags know (FLORES, Tatoeba, NTREX).
_ALSO = {
    "ace": ("Arab",),
    "bjn": ("Arab",),
    "crh": ("Latn",),
    "gom": ("Latn",),
    "kk": ("Latn",),
    "kr": ("Arab",),
    "ks": ("Deva",),
    "min": ("Arab",),
    "shi": ("Arab", "Latn"),
    "taq": ("Tfng",),
    "tt": ("Latn",),
    "tzm": ("Arab", "Tfng"),
}

LETTER, WIDE_LETTER, FOREIGN, WIDE_FOREIGN, DIGIT, SPACE, OTHER = "LWFVD ."
"""Kinds of characters: letters of the expected scripts or of none, those of other scripts, and the rest. Wide
ones (Chinese, Japanese, Korean) say about as much as three others. Marks, as vowel signs, are letters."""


WIDTH = 3  # letters that say as much as one wide one


def split_tag(code: str) -> tuple[str, str | None]:
    """Return the base language of a tag and the script it names, if it does: "arb_Latn" → ("ar", "Latn").

    Raises InvalidInputError for what is no language.
    """
    return normalize_language(code), Language.get(code).script


def scripts_of(language: str, script: str | None = None) -> frozenset[str]:
    """Return the scripts (ISO 15924, as Unicode has them) that a language is written in, all of them.

    A script that the tag names is the only one. Empty where nothing is known.
    """
    known = {script} if script else _known_scripts()[language] | set(_ALSO.get(language, ()))
    return frozenset(part for name in known for part in _PARTS.get(name, (name,)))


def usual_script(language: str) -> str | None:
    """Return the script (ISO 15924) that a language is mostly written in: "Latn", "Hans", "Jpan"."""
    return Language.get(language).maximize().script


@lru_cache(maxsize=1)
def _known_scripts() -> defaultdict[str, set[str]]:
    """The scripts that CLDR's likely subtags have for a language in any region."""
    known: defaultdict[str, set[str]] = defaultdict(set)
    for tag in LIKELY_SUBTAGS.values():
        found = Language.get(tag)
        if found.language is None or found.script is None:
            continue
        known[_base(found.language)].add(found.script)
    return known


def _base(language: str) -> str:
    try:
        return normalize_language(language)
    except InvalidInputError:  # a code that the registry has withdrawn
        return language


class CharacterKinds(dict[int, str]):
    """A table for str.translate that makes each character its kind; filled as characters come."""

    def __init__(self, scripts: frozenset[str]) -> None:
        super().__init__()
        self._expected = _pattern(scripts)

    def __missing__(self, code: int) -> str:
        kind = self[code] = self._kind(chr(code))
        return kind

    def _kind(self, character: str) -> str:
        category = unicodedata.category(character)
        if category[0] in "LM":
            wide = category in ("Lo", "Lm") and unicodedata.east_asian_width(character) in "WF"
            if self._expected is None or self._expected.match(character):
                return WIDE_LETTER if wide else LETTER
            return WIDE_FOREIGN if wide else FOREIGN
        if category[0] == "N":
            return DIGIT
        return SPACE if character.isspace() else OTHER


def _pattern(scripts: frozenset[str]) -> Any:
    """Return what matches a character of these scripts or of none; None where nothing is expected."""
    names = []
    for script in sorted(scripts):
        try:
            regex.compile(rf"\p{{scx={script}}}")
        except regex.error:  # a script without letters of its own in Unicode
            continue
        names.append(rf"\p{{scx={script}}}")
    return regex.compile(f"[{''.join(names)}\\p{{Zyyy}}\\p{{Zinh}}]") if names else None


_ANY_KIND = CharacterKinds(frozenset())


def text_width(text: str) -> int:
    """Return the number of characters, a wide one (Chinese, Japanese, Korean) as three."""
    return len(text) + (WIDTH - 1) * text.translate(_ANY_KIND).count(WIDE_LETTER)
