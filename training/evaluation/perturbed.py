"""English sentences changed in one place, so that they say something else: the hard negatives of xsim++.

After the categories of xsim++ (Chen et al., ACL 2023, arXiv 2306.12907): numbers, entities, and negation
("causality alternation" there: a "not" more or less, a word for its opposite). The rules are our own and
need no model: figures compare with each other, not with those on Meta's file. Every choice is by a hash of
the sentence, so the same sentences always give the same changes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

from training.evaluation.english_names import Names, find_names
from training.evaluation.english_opposites import OPPOSITES

KINDS = ("numbers", "entities", "negation")
_PER_PLACE = 3  # changes of one number or name
_PER_KIND = 8  # changes of one sentence

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")
_YEAR = re.compile(r"[12]\d{3}")
_WORDS = (
    ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
    ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    ("hundred", "thousand", "million", "billion", "trillion"),
    ("hundreds", "thousands", "millions", "billions"),
    ("once", "twice"),
    ("half", "third", "quarter"),
)
_CLASS = {word: words for words in reversed(_WORDS) for word in words}
_WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|will|would|could|should|must|may|might|does|did|can|(?:has|have|had) been)\b"
)
_CONTRACTED = {
    "can": "cannot",
    "has been": "has not been",
    "have been": "have not been",
    "had been": "had not been",
}
_NOT = re.compile(
    r"\bcannot\b|\b(can|won|do|does|did|is|are|was|were|has|have|had|would|could|should)n?['’]t\b| not\b"
)
_POSITIVE = {"cannot": "can", " not": "", "can't": "can", "won't": "will"}


def perturbed(sentences: Sequence[str]) -> list[dict[str, list[str]]]:
    """Return for every sentence its changed versions by kind, each text once and none a sentence itself."""
    names = find_names(sentences)
    taken = set(sentences)
    found = []
    for row, sentence in enumerate(sentences):
        versions = {
            "numbers": _numbers(sentence),
            "entities": _entities(sentence, names, row),
            "negation": _negation(sentence),
        }
        found.append({kind: _chosen(sentence, texts, taken) for kind, texts in versions.items()})
    return found


def _chosen(sentence: str, texts: Iterator[str], taken: set[str]) -> list[str]:
    """Return some of the texts that nobody has yet, and mark them as taken."""
    fresh = sorted(set(texts) - taken, key=lambda text: _hash(sentence, text))[:_PER_KIND]
    taken.update(fresh)
    return fresh


def _hash(*texts: str) -> int:
    return zlib.crc32("\0".join(texts).encode())


def _replaced(sentence: str, match: re.Match[str], text: str) -> str:
    return sentence[: match.start()] + text + sentence[match.end() :]


def _like(word: str, new: str) -> str:
    """Return ``new`` with a capital where ``word`` has one."""
    return new[:1].upper() + new[1:] if word[:1].isupper() else new


def _numbers(sentence: str) -> Iterator[str]:
    for match in _NUMBER.finditer(sentence):
        others = sorted(_other_numbers(match[0]), key=lambda number: _hash(sentence, match[0], number))
        yield from (_replaced(sentence, match, other) for other in others[:_PER_PLACE])
    for match in _WORD.finditer(sentence):
        others = [word for word in _CLASS.get(match[0].lower(), ()) if word != match[0].lower()]
        others.sort(key=lambda word: _hash(sentence, match[0], word))
        yield from (_replaced(sentence, match, _like(match[0], word)) for word in others[:_PER_PLACE])


def _other_numbers(number: str) -> Iterator[str]:
    """Yield numbers of the same form with one digit changed; a year stays in its century.

    The first digit does not become 0.
    """
    fixed = 2 if _YEAR.fullmatch(number) else 0
    for place, old in enumerate(number):
        if old.isdigit() and place >= fixed:
            least = 1 if place == 0 else 0
            digits = (str(digit) for digit in range(least, 10) if str(digit) != old)
            yield from (number[:place] + digit + number[place + 1 :] for digit in digits)


def _entities(sentence: str, names: Names, row: int) -> Iterator[str]:
    for match, kind in names.found[row]:
        others = [name for name in names.of_kind[kind] if name != match[0]]
        others.sort(key=lambda name: _hash(sentence, match[0], name))
        yield from (_replaced(sentence, match, other) for other in others[:_PER_PLACE])


def _negation(sentence: str) -> Iterator[str]:
    for match in _NOT.finditer(sentence):
        yield _replaced(sentence, match, _POSITIVE.get(match[0].replace("’", "'"), match[1] or ""))
    for match in _AUXILIARY.finditer(sentence):
        if not re.match(r"\s*(?:not\b|never\b|n?['’]t)", sentence[match.end() :]):
            yield _replaced(sentence, match, _CONTRACTED.get(match[0], f"{match[0]} not"))
    for match in _WORD.finditer(sentence):
        opposite = OPPOSITES.get(match[0].lower())
        if opposite is not None:
            yield _replaced(sentence, match, _like(match[0], opposite))
