"""Localisation files: XLIFF 1.0 to 1.2 and 2.x (OASIS), read a unit at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedsvc.mining.inline_markup import InlineMarkup, SegmentText
from embedsvc.mining.records import Record
from embedsvc.mining.translation_units import TranslationUnit, Variant, pairs_in, records_in
from embedsvc.mining.xml_stream import FOREIGN, XML_LANG, Attributes, stream_xml

_MARKUP = InlineMarkup(
    codes=frozenset({"bpt", "ept", "it", "ph", "cp"}),
    placeholders=frozenset({"ph", "x"}),
)
_UNITS = ("trans-unit", "segment")  # of 1.x, of 2.x
_TEXTS = ("source", "seg-source", "target")
_NO_TRANSLATIONS = ("alt-trans", FOREIGN)  # their sources and targets are not the unit's


def read_xliff(path: Path, language: str) -> Iterator[Record]:
    """Yield the sources or targets in a language, any of its regions; ``line`` is the number of the unit.

    ``id`` is the unit's, with that of the segment after a colon where a unit is cut into segments;
    ``document`` is what the file calls its original. Inline markup is left out, the text it marks is kept.
    Memory does not grow with the file. Proposals (``alt-trans``) are no translations and are not read.
    Raises InvalidInputError for damaged XML, naming the line, and for a language that no unit has.
    """
    return records_in(xliff_units(path), language, path)


def read_xliff_pairs(
    path: Path, source_language: str, target_language: str
) -> Iterator[tuple[Record, Record]]:
    """Yield the source and target, or target and source, of the units that have both languages."""
    return pairs_in(xliff_units(path), (source_language, target_language), path)


def read_xliff_translations(path: Path) -> Iterator[tuple[Record, Record]]:
    """Yield the source and target of the units that have both, whatever their languages."""
    for unit in xliff_units(path):
        if len(unit.variants) == 2:
            yield unit.record(unit.variants[0]), unit.record(unit.variants[1])


def xliff_units(path: Path) -> Iterator[TranslationUnit]:
    """Yield the units of an XLIFF file; their first variant is the source."""
    return stream_xml(path, "xliff", _XliffContent())


@dataclass
class _Text:
    """A source or target: its language, its whole text, and its segments by the ids of their markers."""

    language: str
    whole: SegmentText = field(default_factory=lambda: SegmentText(_MARKUP))
    segments: dict[str, SegmentText] = field(default_factory=dict)


class _XliffContent:
    """Collect ``<trans-unit>`` (1.x) or ``<segment>`` (2.x) elements."""

    def __init__(self) -> None:
        self._complete: list[TranslationUnit] = []
        self._count = 0
        self._root_languages = self._languages = ("", "")
        self._document: str | None = None
        self._group_id: str | None = None
        self._ignored = 0  # depth within an element that is not read
        self._open: list[SegmentText] | None = None  # what character data goes to
        self._markers: list[str | None] = []  # of the inline elements that are open; None: no segment's
        self._begin(None)

    def _begin(self, id: str | None) -> None:
        self._id = id
        self._texts: dict[str, _Text] = {}
        self._properties: dict[str, SegmentText] = {}

    def start(self, name: str, attributes: Attributes) -> None:
        if self._open is not None:
            self._start_inline(name, attributes)
        elif self._ignored or name in _NO_TRANSLATIONS:
            self._ignored += 1
        elif name in _TEXTS:
            language = self._languages[name == "target"]
            self._current = self._texts[name] = _Text(attributes.get(XML_LANG) or language)
            self._open = [self._current.whole]
        elif name == "context" and attributes.get("context-type", "").startswith("x-"):
            self._properties[attributes["context-type"]] = SegmentText(_MARKUP)
            self._open = [self._properties[attributes["context-type"]]]
        elif name in _UNITS:
            self._begin(_joined(self._group_id if name == "segment" else None, attributes.get("id")))
        else:
            self._start_outer(name, attributes)

    def _start_inline(self, name: str, attributes: Attributes) -> None:
        assert self._open is not None
        for text in self._open:
            text.start(name)
        marker = attributes.get("mid") if name == "mrk" and attributes.get("mtype") == "seg" else None
        self._markers.append(marker)
        if marker is not None:
            self._open.append(self._current.segments.setdefault(marker, SegmentText(_MARKUP)))

    def _start_outer(self, name: str, attributes: Attributes) -> None:
        if name == "xliff":
            self._root_languages = (attributes.get("srcLang", ""), attributes.get("trgLang", ""))
        elif name == "file":
            source, target = self._root_languages
            self._languages = (
                attributes.get("source-language", source),
                attributes.get("target-language", target),
            )
            self._document = attributes.get("original") or attributes.get("id")
        elif name == "unit":
            self._group_id = attributes.get("id")

    def text(self, data: str) -> None:
        for text in self._open or ():
            text.text(data)

    def end(self, name: str) -> None:
        if self._open is not None and self._markers:
            if self._markers.pop() is not None:
                self._open.pop()
            for text in self._open:
                text.end()
        elif self._open is not None:
            self._open = None
        elif self._ignored:
            self._ignored -= 1
        elif name in _UNITS:
            self._finish()

    def _finish(self) -> None:
        properties = {name: text.value() for name, text in self._properties.items()}
        for marker, variants in self._variants():
            self._count += 1
            id = _joined(self._id, marker)
            self._complete.append(
                TranslationUnit(self._count, id, self._document, tuple(variants), properties)
            )

    def _variants(self) -> Iterator[tuple[str | None, list[Variant]]]:
        """Yield the variants of the unit, or of each of its segments if both sides are cut alike."""
        source = self._texts.get("seg-source", self._texts.get("source"))
        texts = [text for text in (source, self._texts.get("target")) if text is not None]
        markers = {marker: None for text in texts for marker in text.segments}
        cut = all(text.segments or not text.whole.value().strip() for text in texts)
        if not markers or not cut:
            yield None, [Variant(text.language, text.whole.value()) for text in texts]
            return
        for marker in markers:
            having = [text for text in texts if marker in text.segments]
            yield marker, [Variant(text.language, text.segments[marker].value()) for text in having]

    def taken(self) -> list[TranslationUnit]:
        complete, self._complete = self._complete, []
        return complete


def _joined(*ids: str | None) -> str | None:
    """Return "unit:segment", or the one there is."""
    return ":".join(id for id in ids if id is not None) or None
