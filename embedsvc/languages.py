"""Languages: which one a text is in (py3langid, offline), and one code for each (langcodes).

Codes are ISO 639-1 where there is one, else ISO 639-3: "en", "zh", "ceb"; "und" means undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
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
_NO_LANGUAGE = {"zxx", "mis", "mul"}
# Labels the detector cannot tell from the standard language (FLORES: under 25 % of the Cantonese and
# Egyptian lines, and the "sdh" lines are all Sorani): a filter for "zh" must not lose a tenth of its texts.
_FOLDED = {"wuu": "zh", "yue": "zh", "arz": "ar", "ary": "ar", "sdh": "ckb"}

# Nearly one written language: a sentence of one is often likelier in another.
_NEARLY_ONE = {"bs", "hr", "sr"}
# Of Nigerian Fulfulde, 4 % of its own lines are taken for another language by ten to one.
_UNRELIABLE = {"fuv"}

_lock = Lock()


def detect_language(text: str) -> str:
    """Return the code of the language that ``text`` is written in; "und" when it is too short to say.

    Knows 134 languages. No network. About 0.1 ms for a sentence; the first call takes half a second.
    """
    sample = text[:_MAX_CHARACTERS]
    if not any(character.isalpha() for character in sample):
        return UNDECIDED
    label, confidence = _identifier().classify(sample)
    if confidence < _MIN_CONFIDENCE or label in _NO_LANGUAGE:
        return UNDECIDED
    return normalize_language(_FOLDED.get(label, label))


def language_odds(text: str, language: str) -> float:
    """Return how many times as probable as ``language`` the most probable other language of a text is.

    ``language`` is one of `detectable_languages`; Bosnian, Croatian and Serbian count as one. Probabilities
    are the detector's, which allow for length: of a short text all languages are about equally probable.
    About 0.1 ms for a sentence.
    """
    group = _NEARLY_ONE if language in _NEARLY_ONE else {language}
    labels = frozenset[str]().union(*(_labels()[code] for code in group))
    if _identifier().classify(text)[0] in labels:
        return 0.0
    ranks = _identifier().rank(text)
    wanted = sum(probability for label, probability in ranks if label in labels)
    return float(ranks[0][1] / max(wanted, 1e-30))


def detectable_languages() -> Set[str]:
    """Return the codes of the languages that the detector recognises reliably."""
    return _labels().keys()


@lru_cache(maxsize=1)
def _labels() -> dict[str, frozenset[str]]:
    """The detector's labels of each language: several where it cannot tell members of a language."""
    labels = _identifier().labels
    codes = {label: _FOLDED.get(label, label) for label in labels if label not in _NO_LANGUAGE}
    found: dict[str, set[str]] = {}
    for label, code in codes.items():
        found.setdefault(normalize_language(code), set()).add(label)
    return {code: frozenset(group) for code, group in found.items() if code not in _UNRELIABLE}


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


def _identifier() -> Any:
    with _lock:
        return _load_identifier()


@lru_cache(maxsize=1)
def _load_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.nb_ptc = identifier.nb_ptc.astype(np.float32)  # float16 takes half as long again
    return identifier
