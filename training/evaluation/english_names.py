"""Names in English sentences, found by their capitals, and sorted by what could stand in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_OF_PEOPLE = re.compile(r"\w+(?:ian|ese|ish|ean)")
_PEOPLE = re.compile(r"\w+(?:ians|eans)")
_NAME = re.compile(r"\b[A-Z][\w’'-]*(?:\s+(?:(?:of|de|van|von|al|bin)\s+)?[A-Z][\w’'-]*)*")
_BEGINS = re.compile(r"(?:^|[.!?:;]\s+|[\"“‘(\[—–]\s*)$")
_WORD = re.compile(r"\b[a-z][\w’'-]*")


@dataclass(frozen=True)
class Names:
    """``found[i]``: the names of sentence i and their kinds; ``of_kind``: the names of each kind."""

    found: list[list[tuple[re.Match[str], str]]]
    of_kind: dict[str, list[str]]


def find_names(sentences: Sequence[str]) -> Names:
    """Return the names of all sentences: capitalised words that do not merely begin one.

    A word that begins a sentence counts as a name if it is one elsewhere; a word that also occurs in lower
    case is none.
    """
    common = {word for sentence in sentences for word in _WORD.findall(sentence)}
    certain = {match[0] for sentence in sentences for match in _inside(sentence)}
    found, of_kind = [], dict[str, dict[str, None]]()
    for sentence in sentences:
        kept = []
        for match in _NAME.finditer(sentence):
            begins = _BEGINS.search(sentence[: match.start()]) is not None
            if match[0].lower() not in common and len(match[0]) > 1 and (not begins or match[0] in certain):
                kept.append((match, _kind(match[0])))
                of_kind.setdefault(kept[-1][1], {})[match[0]] = None
        found.append(kept)
    return Names(found, {kind: list(names) for kind, names in of_kind.items()})


def _inside(sentence: str) -> Iterator[re.Match[str]]:
    """Yield the names that begin no sentence, quotation or bracket."""
    for match in _NAME.finditer(sentence):
        if not _BEGINS.search(sentence[: match.start()]):
            yield match


def _kind(name: str) -> str:
    for kind, names in (("month", MONTHS), ("day", DAYS)):
        if name in names:
            return kind
    if name.isupper():
        return "acronym"
    for kind, pattern in (("of a people", _OF_PEOPLE), ("people", _PEOPLE)):
        if pattern.fullmatch(name):
            return kind
    words = len(name.split())
    possessive = " of somebody" if name.endswith(("'s", "’s")) else ""
    return f"{min(words, 3)} words{possessive}"
