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
from collections.abc import Callable
from functools import lru_cache
from operator import add, itemgetter
from typing import NamedTuple

import Stemmer

TOKENIZE = "ascii"  # FTS5 need not know Unicode: terms come ready, and all past ASCII belongs to a term
# A contentless index must be told what to delete, so one name stands for one analysis for ever.
ANALYZER = f"1 unicode-{unicodedata.unidata_version} snowball-{Stemmer.version()}"
POSTINGS_BUDGET = 20_000
MAX_WORD = 64  # characters; the rest of a longer word (base64, hashes) is not indexed
MAX_QUERY_TERMS = 4_096  # each is looked up: megabytes of a query would take a thread for minutes


def _ranges(has: Callable[[str], bool]) -> str:
    """Return the characters past ASCII of the first plane with a property, as ranges for an expression."""
    codes = [code for code in range(0x80, 0x10000) if has(chr(code))]
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

# One table look-up per character is several times faster than \\w; past the first plane it is three ranges.
_LETTERS = _ranges(lambda char: char.isalnum() or unicodedata.category(char)[0] == "M")
_WORD = re.compile(f"[0-9A-Za-z{_LETTERS}\U00010000-\U0001cfff\U0001d400-\U0001efff\U00020000-\U000323af]+")
_ASCII_WORD = re.compile("[0-9a-z]+")
_DIGITS = _ranges(str.isdecimal)
_DIGIT = re.compile(f"[{_DIGITS}]")
_IGNORED = re.compile(
    "[\u00ad\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
)  # hyphenation, joiners, variants
_NON_JOINER = re.compile("(?<=[\u0600-\u08ff])\u200c")  # ends a prefix in Persian, joins nothing elsewhere
# Thai, Lao; Tibetan, Myanmar; Hangul jamo; Khmer; kana, Bopomofo; Han; Myanmar extended; Hangul; Han.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u302f\u3031-\u3035\u303b\u303c"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
_UNSPACED_RUNS = re.compile(f"([{_UNSPACED}]+)")
# What most texts have none of, and are then spared four substitutions.
_SPECIAL = re.compile(
    "[\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\ufeff"
    + _DIGITS
    + _UNSPACED[: _UNSPACED.index("\U0001aff0")]
    + "\U00010000-\U0010ffff]"
)
# A letter, its marks, the vowels written around it (Thai, Lao), and what stands below it (Khmer, Myanmar).
_SIGNS = "".join(char for char in map(chr, range(0xE00, 0x1800)) if unicodedata.category(char)[0] == "M")
_CHARACTER = re.compile(
    f"[\u0e40-\u0e44\u0ec0-\u0ec4]?.[{_SIGNS}]*[\u0e30\u0e32\u0e45\u0eb0\u0eb2]?(?:(?<=[\u17d2\u1039]).[{_SIGNS}]*)*"
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
    if text.isascii() and language not in _DOTLESS_I:
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


def match_expression(
    query: str,
    language: str | None,
    *,
    frequency: Callable[[str], int] | None = None,
    budget: int = POSTINGS_BUDGET,
) -> str | None:
    """Return an FTS5 MATCH expression for texts with any term of the query; None when it has no term.

    bm25() costs about 1 µs for each text that matches: with ``frequency``, the number of texts that have
    a term (a stale count does no harm), the rarest terms are taken, as many as match ``budget`` texts
    in all, but at least one that any text has. Without it, all terms are. Of a query with more than
    `MAX_QUERY_TERMS` terms the first are taken.
    """
    terms = query_terms(query, language)[:MAX_QUERY_TERMS]
    return _expression(terms if frequency is None else _rarest(terms, frequency, budget))


def _rarest(terms: list[Term], frequency: Callable[[str], int], budget: int) -> list[Term]:
    counted = sorted(((sum(map(frequency, set(term))), term) for term in terms), key=itemgetter(0))
    total, taken = 0, []
    for count, term in counted:
        if total and total + count > budget:
            break
        total += count
        taken.append(term)
    return taken


def _expression(terms: list[Term]) -> str | None:
    """OR over the terms; a text that has the primary form of a word is not scored for the plain one too."""
    primary = list(dict.fromkeys(f'"{term.primary}"' for term in terms))
    # Not simply plain NOT primary: where no text has the plain form, FTS5 leaves the right side on its
    # first text, and bm25() counts the primary form twice there.
    plain = [
        f'(("{term.plain}" OR "{term.primary}") NOT "{term.primary}")'
        for term in terms
        if term.plain != term.primary
    ]
    return " OR ".join(primary + plain) or None


def _segments(text: str) -> tuple[str, list[str]]:
    """Split a text into its words between separators, and the runs of scripts without spaces."""
    text = unicodedata.normalize("NFKC", text)
    if not _SPECIAL.search(text):
        return text, []
    text = _NON_JOINER.sub(" ", text).replace("\u200c", "")
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), _IGNORED.sub("", text))
    parts = _UNSPACED_RUNS.split(text)
    return " ".join(parts[::2]), [run for part in parts[1::2] for run in _WORD.findall(part)]


def _characters(run: str) -> list[str]:
    """Return the characters of a run, then its overlapping pairs of characters."""
    characters = _CHARACTER.findall(run) if run[0] < "\u3000" else list(run)
    return characters + list(map(add, characters, characters[1:]))


class _Words(dict[str, str]):
    """What is indexed for each word of a language: both forms in one string, computed once."""

    def __init__(self, language: str | None) -> None:
        super().__init__()
        self._language = language
        self._stemmer = Stemmer.Stemmer(_STEMMERS[language], 0) if language in _STEMMERS else None
        self._lock = threading.Lock()  # a stemmer serves one thread at a time

    def __missing__(self, word: str) -> str:
        primary, plain = self.term(word)
        indexed = primary if primary == plain else f"{primary} {plain}"
        if len(word) <= MAX_WORD:
            if len(self) >= _MAX_CACHED:
                self.clear()
            self[word] = indexed
        return indexed

    def term(self, word: str) -> Term:
        """Return both forms of a word as it stands in the text."""
        if self._language in _DOTLESS_I:
            word = word.replace("I", "ı").replace("İ", "i")
        word = word[:MAX_WORD].casefold()
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
