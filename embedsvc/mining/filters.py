"""Filters of single sentences, and the names of all filters. A filter's name is the reason in the report.

    long      more than max_characters; a wide character (Chinese, Japanese, Korean) counts as three
    short     fewer than min_characters
    letters   no letter at all
    symbols   letters are fewer than half of what is not space: digits, punctuation, emoji
    repeats   a character eight times or more in a row
    script    fewer than 30 % of the letters are of the scripts that the language is written in
    language  another language is at least ten times as probable as the wanted one
    ratio     (pairs) the lengths differ far more than those of the other pairs
    copy      (pairs) both sides are the same but for case, spaces and punctuation
    numbers   (pairs) each side has a number that the other has not

A sentence is given the first reason in this order; the rest is not tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedsvc.errors import InvalidInputError
from embedsvc.language_odds import detectable_languages, language_odds
from embedsvc.mining.scripts import (
    DIGIT,
    FOREIGN,
    LETTER,
    OTHER,
    WIDE_FOREIGN,
    WIDE_LETTER,
    WIDTH,
    CharacterKinds,
    scripts_of,
    split_tag,
    usual_script,
)

if TYPE_CHECKING:
    from embedsvc.mining.ingest_options import IngestOptions

SENTENCE_FILTERS = ("long", "short", "letters", "symbols", "repeats", "script", "language")
PAIR_FILTERS = ("ratio", "copy", "numbers")
FILTERS = SENTENCE_FILTERS + PAIR_FILTERS

# Thresholds: of the FLORES, NTREX and Tatoeba lines (300 languages and sets) each drops less than 0.1 %.
_LEAST_LETTERS = 0.5
_LEAST_EXPECTED = 0.3
_REPEATED = re.compile(r"(\S)\1{7}")
# Less, and a language's own lines are lost to its neighbours (Bosnian to Croatian); with ten under 1 % are
# of every language that the detector knows, on FLORES, and it catches 99 % of the lines in other languages.
_LEAST_ODDS = 10.0
_JUDGED_CHARACTERS = 300  # more text changes no answer


def resolve_filters(filters: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of filters in their order: "default" is all, "none" none, else "short,copy" or a list.

    Raises InvalidInputError naming one that is unknown and all that are known.
    """
    names = filters.split(",") if isinstance(filters, str) else list(filters)
    names = [name.strip() for name in names]
    if names == ["default"]:
        return FILTERS
    if names in (["none"], [""]):
        return ()
    for name in names:
        if name not in FILTERS:
            raise InvalidInputError(
                f"filter {name!r} is unknown; choose default, none, or among {', '.join(FILTERS)}",
                param="filters",
            )
    return tuple(name for name in FILTERS if name in names)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A sentence and how many characters of each kind it has; ``width`` counts wide ones as three."""

    text: str
    width: int
    letters: int
    expected: int
    visible: int


class SentenceFilters:
    """The reason, if any, why a sentence is not mined. ``notes`` say what cannot be checked, and why."""

    def __init__(self, options: IngestOptions) -> None:
        self._options = options
        self.names = tuple(name for name in SENTENCE_FILTERS if name in options.filters)
        self.notes: list[str] = []
        self._language: str | None = None
        self._script: str | None = None
        if options.language is not None:
            self._language, self._script = split_tag(options.language)
        scripts = scripts_of(self._language, self._script) if self._language else frozenset()
        self._kinds = CharacterKinds(scripts)
        checks: dict[str, Callable[[_Counted], bool]] = {
            "long": lambda counted: counted.width > options.max_characters,
            "short": lambda counted: counted.width < options.min_characters,
            "letters": lambda counted: not counted.letters,
            "symbols": lambda counted: counted.letters < _LEAST_LETTERS * counted.visible,
            "repeats": lambda counted: _REPEATED.search(counted.text) is not None,
            "script": lambda counted: counted.expected < _LEAST_EXPECTED * counted.letters,
        }
        unusable = self._unusable(scripts)
        self.notes += [f"{name}: not checked; {why}" for name, why in unusable.items() if why]
        usable = [name for name in self.names if name not in unusable]
        self._checks = [(name, checks[name]) for name in usable if name in checks]
        self._checks_language = "language" in usable

    def _unusable(self, scripts: frozenset[str]) -> dict[str, str]:
        """Return which filters have nothing to go by, and why; "" where another one decides as well."""
        found = {}
        if "script" in self.names and not scripts:
            found["script"] = f"no script is known for {self._language!r}" if self._language else _NO_LANGUAGE
        if "language" in self.names:
            if self._language is None:
                found["language"] = _NO_LANGUAGE
            elif not _is_detectable(self._language, self._script):
                found["language"] = f"the detector does not know {self._options.language!r}"
            elif "script" in self.names and _only_language_of(scripts, self._language):
                found["language"] = ""
        return found

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """Return the reason of each sentence, None for one that is kept."""
        reasons = [self._reason(text) for text in texts]
        if self._checks_language and self._language is not None:
            rest = [i for i, reason in enumerate(reasons) if reason is None]
            odds = language_odds([texts[i][:_JUDGED_CHARACTERS] for i in rest], self._language)
            for i in (odds >= _LEAST_ODDS).nonzero()[0].tolist():
                reasons[rest[i]] = "language"
        return reasons

    def _reason(self, text: str) -> str | None:
        if not self._checks:
            return None
        if "long" in self.names and len(text) > self._options.max_characters:
            return "long"
        counted = self._counted(text)
        return next((name for name, drops in self._checks if drops(counted)), None)

    def _counted(self, text: str) -> _Counted:
        kinds = text.translate(self._kinds)
        wide, wide_foreign = kinds.count(WIDE_LETTER), kinds.count(WIDE_FOREIGN)
        expected = kinds.count(LETTER) + wide
        letters = expected + kinds.count(FOREIGN) + wide_foreign
        visible = letters + kinds.count(DIGIT) + kinds.count(OTHER)
        return _Counted(text, len(text) + (WIDTH - 1) * (wide + wide_foreign), letters, expected, visible)


_NO_LANGUAGE = "the option language was not given"


def _is_detectable(language: str, script: str | None) -> bool:
    """Say whether the detector knows a language as it is written: most in their usual script only."""
    if language not in detectable_languages():
        return False
    return (
        script is None
        or (language, script) == ("sr", "Latn")
        or bool(scripts_of(language, script) & scripts_of(language, usual_script(language)))
    )


def _only_language_of(scripts: frozenset[str], language: str) -> bool:
    """Say whether no other language that the detector knows is written in these scripts."""
    return not any(other != language and scripts_of(other) & scripts for other in detectable_languages())
