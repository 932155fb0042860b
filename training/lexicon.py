"""A bilingual lexicon: translations of English words, from a file of pairs or from the data's own."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from training.pair_files import PairFile
from training.pair_readers import read_pairs
from training.pair_store import TextPairs

_WORD = re.compile(r"\w+")
_BETWEEN_WORDS = re.compile(r"(\w+)")
_LONGEST_WORD = 40  # characters


class Lexicon:
    """Replaces words by translations, whatever their case. ``words`` are in lower case."""

    def __init__(self, words: Mapping[str, list[str]]) -> None:
        self.words = words

    def switched(self, text: str, share: float, generator: np.random.Generator) -> str:
        """Return the text with that share of the words that the lexicon has replaced by a translation each.

        Every word may go to another language, as in CoSDA-ML (https://arxiv.org/abs/2006.06402).
        """
        parts = _BETWEEN_WORDS.split(text)  # every second one is a word
        for place in range(1, len(parts), 2):
            translations = self.words.get(parts[place].casefold())
            if translations and generator.random() < share:
                parts[place] = translations[generator.integers(len(translations))]
        return "".join(parts)


def read_lexicon(files: Iterable[PairFile]) -> Lexicon:
    """Return the lexicon of files of pairs; entries whose English is not one word are passed over.

    Raises InvalidInputError as `read_pairs`, and for files without an entry that can be used.
    """
    files = [*files]
    pairs = (pair for file in files for pair in read_pairs(file, skipped=Counter()))
    words = _words((pair.source, pair.target) for pair in pairs if pair.target.strip())
    if not words:
        raise InvalidInputError(
            f"data.lexicon: no entry of one English word in {', '.join(str(file.path) for file in files)}"
        )
    return Lexicon(words)


def learnt_lexicon(pairs: TextPairs, left_out: NDArray[np.bool_]) -> Lexicon:
    """Return the lexicon of those pairs that are one word on both sides, but for the pairs left out.

    Raises InvalidInputError where there is none.
    """
    is_word = np.zeros(len(pairs.english), np.bool_)
    for row in np.flatnonzero(pairs.characters <= _LONGEST_WORD).tolist():
        is_word[row] = _is_word(pairs.english[row])
    rows = np.flatnonzero(is_word[pairs.group] & ~left_out)
    both = zip(pairs.group[rows].tolist(), rows.tolist(), strict=True)
    found = ((pairs.english[word], pairs.other[row]) for word, row in both)
    words = _words((word, other) for word, other in found if _is_word(other))
    if not words:
        raise InvalidInputError(
            "sampling.code_switching: the data have no pair of one word on both sides; give data.lexicon"
        )
    return Lexicon(words)


def _is_word(text: str) -> bool:
    return len(text) <= _LONGEST_WORD and _WORD.fullmatch(text.strip()) is not None


def _words(entries: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The translations of each word, each once, in the order of the entries."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for word, translation in entries:
        if _is_word(word) and word.strip().casefold() != translation.strip().casefold():
            found[word.strip().casefold()][translation.strip()] = None
    return {word: [*translations] for word, translations in found.items()}
