"""Translation memories: TMX 1.1 to 1.4b (LISA OSCAR), read a unit at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsvc.mining.inline_markup import InlineMarkup, SegmentText
from embedsvc.mining.records import Record
from embedsvc.mining.translation_units import TranslationUnit, Variant, pairs_in, records_in
from embedsvc.mining.xml_stream import XML_LANG, Attributes, stream_xml

_MARKUP = InlineMarkup(
    codes=frozenset({"bpt", "ept", "it", "ph", "ut"}),
    placeholders=frozenset({"ph"}),
)
_DOCUMENT = "x-document"  # the property that memoQ and others write


def read_tmx(path: Path, language: str) -> Iterator[Record]:
    """Yield the segments in a language, any of its regions; ``line`` is the number of the unit.

    Inline markup is left out, the text it marks is kept. Memory does not grow with the file.
    Raises InvalidInputError for damaged XML, naming the line, and for a language that no unit has.
    """
    return records_in(tmx_units(path), language, path)


def read_tmx_pairs(path: Path, source_language: str, target_language: str) -> Iterator[tuple[Record, Record]]:
    """Yield the segments of the units that have both languages, as `read_tmx`."""
    return pairs_in(tmx_units(path), (source_language, target_language), path)


def tmx_units(path: Path) -> Iterator[TranslationUnit]:
    """Yield the units of a TMX file."""
    return stream_xml(path, "tmx", _TmxContent())


class _TmxContent:
    """Collect ``<tu>`` elements."""

    def __init__(self) -> None:
        self._complete: list[TranslationUnit] = []
        self._count = 0
        self._id: str | None = None
        self._language = ""
        self._variants: list[Variant] = []
        self._properties: dict[str, str] = {}
        self._property: str | None = None
        self._collected: SegmentText | None = None

    def start(self, name: str, attributes: Attributes) -> None:
        if self._collected is not None:
            self._collected.start(name)
        elif name == "tu":
            self._count += 1
            self._id, self._variants, self._properties = attributes.get("tuid"), [], {}
        elif name == "tuv":
            self._language = attributes.get(XML_LANG) or attributes.get("lang") or ""
        elif name == "seg":
            self._collected = SegmentText(_MARKUP)
        elif name == "prop" and attributes.get("type", "").startswith("x-"):
            self._property, self._collected = attributes["type"], SegmentText(_MARKUP)

    def text(self, data: str) -> None:
        if self._collected is not None:
            self._collected.text(data)

    def end(self, name: str) -> None:
        if self._collected is not None and name not in ("seg", "prop"):
            self._collected.end()
        elif name == "seg" and self._collected is not None:
            self._variants.append(Variant(self._language, self._collected.value()))
            self._collected = None
        elif name == "prop" and self._collected is not None and self._property is not None:
            self._properties[self._property] = self._collected.value()
            self._collected = None
        elif name == "tu":
            self._complete.append(self._unit())

    def _unit(self) -> TranslationUnit:
        document = self._properties.get(_DOCUMENT)
        return TranslationUnit(self._count, self._id, document, tuple(self._variants), self._properties)

    def taken(self) -> list[TranslationUnit]:
        complete, self._complete = self._complete, []
        return complete
