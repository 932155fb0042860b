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

    What begins a sentence counts as a name if it is one elsewhere; else its first word is left out ("On
    Monday", "Most of Peru"), as is a "The". A word that also occurs in lower case is none.
    """
    common = {word for sentence in sentences for word in _WORD.findall(sentence)}
    certain = {match[0] for sentence in sentences for match in _names(sentence, set())}
    found, of_kind = [], dict[str, dict[str, None]]()
    for sentence in sentences:
        names = [
            name for name in _names(sentence, certain) if name[0].lower() not in common and len(name[0]) > 1
        ]
        found.append([(name, _kind(name[0])) for name in names])
        for name, kind in found[-1]:
            of_kind.setdefault(kind, {})[name[0]] = None
    return Names(found, {kind: list(names) for kind, names in of_kind.items()})


def _names(sentence: str, certain: set[str]) -> Iterator[re.Match[str]]:
    """Yield capitalised words; at the beginning of a sentence or quotation only ``certain`` ones."""
    for match in _NAME.finditer(sentence):
        begins = match[0].startswith("The ") or _BEGINS.search(sentence[: match.start()]) is not None
        if match[0] in certain or not begins:
            yield match
        elif rest := _NAME.search(sentence, match.start() + len(match[0].split()[0]), match.end()):
            yield rest


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
