"""Languages: which one a text is in (py3langid, offline), and one code for each (langcodes).

Codes are ISO 639-1 where there is one, else ISO 639-3: "en", "zh", "ceb"; "und" means undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from langcodes import Language
from langcodes.data_dicts import NORMALIZED_MACROLANGUAGES
from langcodes.tag_parser import LanguageTagError

from embedsvc.errors import InvalidInputError

UNDECIDED = "und"
_MIN_CONFIDENCE = 0.1  # below it two guesses of three are wrong (Tatoeba, 82 languages)
_MAX_CHARACTERS = 2_000  # more text changes no answer and costs 0.1 ms per 100 characters
# What the registry prefers but users, models and the detector do not: one code per language.
_PREFERRED = {"nb": "no", "fil": "tl"}
LABELS_WITHOUT_LANGUAGE = frozenset({"zxx", "mis", "mul"})
# Labels the detector cannot tell from the standard language (FLORES: under 25 % of the Cantonese and
# Egyptian lines, and the "sdh" lines are all Sorani): a filter for "zh" must not lose a tenth of its texts.
FOLDED_LABELS = {"wuu": "zh", "yue": "zh", "arz": "ar", "ary": "ar", "sdh": "ckb"}

_lock = Lock()


def detect_language(text: str) -> str:
    """Return the code of the language that ``text`` is written in; "und" when it is too short to say.

    Knows 134 languages. No network. About 0.1 ms for a sentence; the first call takes half a second.
    """
    sample = text[:_MAX_CHARACTERS]
    if not any(character.isalpha() for character in sample):
        return UNDECIDED
    label, confidence = identifier().classify(sample)
    if confidence < _MIN_CONFIDENCE or label in LABELS_WITHOUT_LANGUAGE:
        return UNDECIDED
    return normalize_language(FOLDED_LABELS.get(label, label))


def normalize_language(code: str) -> str:
    """Return the base code of a language tag: "EN", "en-US", "eng" → "en"; "pt_BR" → "pt"; "cmn" → "zh".

    Script and region are dropped. The dominant member of a macrolanguage becomes the macrolanguage
    ("arb" → "ar", "swh" → "sw"); other members keep their own code ("arz", "yue").
    Raises InvalidInputError for what is no language.
    """
    if not isinstance(code, str):
        raise _unknown(code)
    return _normalized(code)


@lru_cache(maxsize=4096)
def _normalized(code: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*", code):
        raise _unknown(code)
    try:
        language = Language.get(code)
    except LanguageTagError as error:
        raise _unknown(code) from error
    base = language.language or UNDECIDED
    if not Language.make(base).is_valid():
        raise _unknown(code)
    base = NORMALIZED_MACROLANGUAGES.get(base, base)
    return _PREFERRED.get(base, base)


def normalize_languages(codes: Iterable[str]) -> frozenset[str]:
    """Return the base codes of a list of tags; raise InvalidInputError for one string or an empty list."""
    if isinstance(codes, str):
        raise InvalidInputError(f"languages must be a list of codes, not {codes!r}", param="languages")
    found = frozenset(normalize_language(code) for code in codes)
    if not found:
        raise InvalidInputError("languages is an empty list; leave it out to search all", param="languages")
    return found


def _unknown(code: object) -> InvalidInputError:
    return InvalidInputError(
        f"{code!r} is not a language code; expected ISO 639 such as 'en', 'deu' or 'pt-BR'", param="language"
    )


def identifier() -> Any:
    """Return py3langid's LanguageIdentifier, loaded once for the process."""
    with _lock:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.nb_ptc = found.nb_ptc.astype(np.float32)  # float16 takes half as long again
    return found
