"""What TMX and XLIFF files hold: units, each the same text in some languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.records import Record


@dataclass(frozen=True, slots=True)
class Variant:
    """The text of a unit in one language, the tag as the file has it."""

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class TranslationUnit:
    """A unit, numbered from 1; ``properties`` are those whose names begin with "x-"."""

    number: int
    id: str | None
    document: str | None
    variants: tuple[Variant, ...]
    properties: Mapping[str, str] = field(default_factory=dict)

    def record(self, variant: Variant) -> Record:
        """Return one of the variants as a sentence."""
        return Record(self.number, variant.text, self.id, self.document)

    def in_language(self, language: str) -> Iterator[Variant]:
        """Yield the variants whose base language is ``language`` (`base_language`)."""
        return (variant for variant in self.variants if base_language(variant.language) == language)


@lru_cache(maxsize=1024)
def base_language(tag: str) -> str:
    """Return the base code of a tag in a file, "en" of "en-US"; what is no language, in lower case."""
    try:
        return normalize_language(tag)
    except InvalidInputError:
        return tag.lower()


def records_in(units: Iterable[TranslationUnit], language: str, path: Path) -> Iterator[Record]:
    """Yield every variant in a language ("en" takes "en-US"; "en-US" takes "en" and "en-GB" too).

    Raises InvalidInputError for what is no language, and in the end for a language no unit has, naming
    those they have.
    """
    wanted = normalize_language(language)
    missing = _Missing(path, (language,))
    for unit in units:
        found = [unit.record(variant) for variant in unit.in_language(wanted)]
        missing.note(unit, bool(found))
        yield from found
    missing.check()


def pairs_in(
    units: Iterable[TranslationUnit], languages: tuple[str, str], path: Path
) -> Iterator[tuple[Record, Record]]:
    """Yield the first variant in each of two languages, of the units that have both.

    Raises InvalidInputError as `records_in`, and for two languages that are one.
    """
    source, target = (normalize_language(language) for language in languages)
    if source == target:
        raise InvalidInputError(f"{languages[0]!r} and {languages[1]!r} are one language, {source!r}")
    missing = _Missing(path, languages)
    for unit in units:
        left, right = next(unit.in_language(source), None), next(unit.in_language(target), None)
        missing.note(unit, left is not None and right is not None)
        if left is not None and right is not None:
            yield unit.record(left), unit.record(right)
    missing.check()


class _Missing:
    """Remember the languages seen until a wanted one is found."""

    def __init__(self, path: Path, wanted: tuple[str, ...]) -> None:
        self._path, self._wanted = path, wanted
        self._seen: Counter[str] = Counter()
        self._found = False

    def note(self, unit: TranslationUnit, found: bool) -> None:
        self._found = self._found or found
        if not self._found:
            self._seen.update({variant.language for variant in unit.variants})

    def check(self) -> None:
        if self._found or not self._seen:
            return
        wanted = " and ".join(map(repr, self._wanted))
        there = ", ".join(f"{tag!r} ({count})" for tag, count in sorted(self._seen.items()))
        raise InvalidInputError(
            f"{self._path}: no unit has {wanted}; the languages there, with how many units: {there}",
            param="language",
        )
