"""Terms of a text for BM25 in SQLite FTS5, in every script.

A word is indexed in two forms: *primary* (its Snowball stem, where the language has a stemmer) and
*plain* (folded: case, width, diacritics, spelling variants). A query matches the primary form, or
else the plain one: best where its language is that of the document, harmless where it is unknown or
wrong. Scripts without spaces, and Hangul, are indexed as single characters and overlapping pairs.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache
from operator import add
from typing import NamedTuple

import Stemmer

TOKENIZE = "ascii"  # FTS5 need not know Unicode: terms come ready, and all past ASCII belongs to a term
# A contentless index must be told what to delete, so one name stands for one analysis for ever.
ANALYZER = f"1 unicode-{unicodedata.unidata_version} snowball-{Stemmer.version()}"
MAX_WORD = 64  # characters; the rest of a longer word (base64, hashes) is not indexed


def _ranges(category: str, first: int) -> str:
    """Return the characters of a Unicode category from ``first`` on, as ranges for a regular expression."""
    categories = map(unicodedata.category, map(chr, range(first, 0x20000)))
    codes = [code for code, found in enumerate(categories, first) if found in category]
    starts = [code for code, before in zip(codes, [0, *codes], strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], 0], strict=True) if code != after - 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


_MAX_CACHED = 100_000  # words per language
_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian",
    "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "st": "sesotho", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
_DOTLESS_I = {"tr", "az"}  # I is the capital of dotless i
_TONAL = {"vi"}  # diacritics tell words apart: the primary form keeps them

_SPECIAL_LANGUAGES = _STEMMERS.keys() | _DOTLESS_I | _TONAL

_MARKS = _ranges("Mn Mc Me", 0x300)
_DIGITS = _ranges("Nd", 0x80)
_VOID = (
    "\u00ad\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"  # soft hyphen, joiners, variation selectors
)
# Thai, Lao; Tibetan, Myanmar; Hangul jamo; Khmer; kana, Bopomofo; Han; Myanmar extended; Hangul; Han.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u302f\u3031-\u3035\u303b\u303c"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
_ASCII_WORD = re.compile(rf"([a-z0-9]{{1,{MAX_WORD}}})[a-z0-9]*")
_WORD = re.compile(rf"([\w{_MARKS}]{{1,{MAX_WORD}}})[\w{_MARKS}]*")
_RUN = re.compile(rf"[\w{_MARKS}]+")
_DIGIT = re.compile(f"[{_DIGITS}]")
_IGNORED = re.compile(f"[{_VOID}]")
_NON_JOINER = re.compile("(?<=[\u0600-\u08ff])\u200c")  # ends a prefix in Persian, joins nothing elsewhere
_SPECIAL = re.compile(f"[_\u200c{_VOID}{_DIGITS}{_UNSPACED}]")  # what most texts have none of
_UNSPACED_RUNS = re.compile(f"([{_UNSPACED}]+)")
# A consonant with its marks, the vowel signs written around it (Thai, Lao) and what is stacked below it.
_CHARACTER = re.compile(
    rf"[\u0e40-\u0e44\u0ec0-\u0ec4]?.[{_MARKS}]*[\u0e30\u0e32\u0e45\u0eb0\u0eb2]?(?:[\u17d2\u1039].[{_MARKS}]*)*"
)
# Accents; Hebrew and Arabic points, tatweel. The signs of Indic scripts are letters of their words, and stay.
_ACCENT = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
    "\u08ca-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
_VARIANTS = str.maketrans(
    {"ı": "i", "ł": "l", "đ": "d", "ø": "o", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
    | {"ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه", "ہ": "ه", "ھ": "ه"}
)


class Term(NamedTuple):
    """The two forms of a word; the same where it has but one, and empty where nothing is left of it."""

    primary: str
    plain: str


def analyze(text: str, language: str | None) -> str:
    """Return the terms of ``text``, separated by spaces; ``language`` is a normalised code or None.

    Under one ``ANALYZER`` the same text and language always give the same terms.
    """
    words = _words(language if language in _SPECIAL_LANGUAGES else None)
    if text.isascii():
        return " ".join(map(words.__getitem__, _ASCII_WORD.findall(text.lower())))
    spaced, runs = _segments(text)
    terms = list(map(words.__getitem__, _WORD.findall(spaced)))
    for run in runs:
        terms += _characters(run)
    return " ".join(filter(None, terms))


def query_terms(query: str, language: str | None) -> list[Term]:
    """Return the distinct terms of a query, in order; ``language`` may be unknown (None) or wrong."""
    words = _words(language if language in _SPECIAL_LANGUAGES else None)
    spaced, runs = _segments(query)
    terms = [words.term(word) for word in _WORD.findall(spaced)]
    terms += [Term(part, part) for run in runs for part in _characters(run)]
    return [term for term in dict.fromkeys(terms) if term.primary]


def match_expression(query: str, language: str | None) -> str | None:
    """Return an FTS5 MATCH expression for texts with any term of the query; None when it has no term."""
    return _expression(query_terms(query, language))


def _expression(terms: list[Term]) -> str | None:
    """OR over the terms. NOT keeps a text that has the primary form from being scored twice for one word."""
    primary = list(dict.fromkeys(f'"{term.primary}"' for term in terms))
    plain = [f'("{plain}" NOT "{primary}")' for primary, plain in terms if plain != primary]
    return " OR ".join(primary + plain) or None


def _segments(text: str) -> tuple[str, list[str]]:
    """Split a text into its words between separators, and the runs of scripts without spaces."""
    text = unicodedata.normalize("NFKC", text)
    if not _SPECIAL.search(text):
        return text, []
    text = _NON_JOINER.sub(" ", text).replace("\u200c", "").replace("_", " ")
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), _IGNORED.sub("", text))
    parts = _UNSPACED_RUNS.split(text)
    return " ".join(parts[::2]), [run for part in parts[1::2] for run in _RUN.findall(part)]


def _characters(run: str) -> list[str]:
    """Return the characters of a run, then its overlapping pairs of characters."""
    characters = _CHARACTER.findall(run)
    return characters + list(map(add, characters, characters[1:]))


class _Words(dict[str, str]):
    """What is indexed for each word of a language: both forms in one string, computed once."""

    def __init__(self, language: str | None) -> None:
        super().__init__()
        self._language = language
        self._stemmer = Stemmer.Stemmer(_STEMMERS[language], 0) if language in _STEMMERS else None
        self._lock = threading.Lock()  # a stemmer serves one thread at a time

    def __missing__(self, word: str) -> str:
        if len(self) >= _MAX_CACHED:
            self.clear()
        primary, plain = self.term(word)
        self[word] = indexed = primary if primary == plain else f"{primary} {plain}"
        return indexed

    def term(self, word: str) -> Term:
        """Return both forms of a word as it stands in the text."""
        if self._language in _DOTLESS_I:
            word = word.replace("I", "ı").replace("İ", "i")
        word = word.casefold()
        plain = _folded(word)
        if self._language in _TONAL:
            return Term(unicodedata.normalize("NFC", word), plain)
        if self._stemmer is None:
            return Term(plain, plain)
        with self._lock:
            return Term(_folded(self._stemmer.stemWord(word)) or plain, plain)


@lru_cache(maxsize=len(_SPECIAL_LANGUAGES) + 1)
def _words(language: str | None) -> _Words:
    return _Words(language)


def _folded(word: str) -> str:
    if word.isascii():
        return word
    bare = _ACCENT.sub("", unicodedata.normalize("NFKD", word))
    return unicodedata.normalize("NFC", bare).translate(_VARIANTS)
