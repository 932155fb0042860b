"""Where the sentences of a text begin and end, in any language (sentencex, offline, no models)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sentencex import get_sentence_boundaries

# The library's time is quadratic in the unclosed quotes of one call: longer text goes in blocks.
_BLOCK_CHARACTERS = 10_000
# Full stops that the library knows nothing of: Khmer, Tibetan, Ol Chiki, Meetei Mayek.
_MORE_STOPS = re.compile(r"[។៕༎᱾᱿꯫]+|།+(?=\s)")


class Span(NamedTuple):
    """Part of a text, in characters: ``text[start:stop]``."""

    start: int
    stop: int


def sentence_spans(text: str, language: str) -> list[Span]:
    """Return the sentences of a text (valid Unicode) in order, without the white space around them.

    Every character that is no white space lies in exactly one sentence. ``language`` is a code such as
    "de"; an unknown one gets rules that suit most. A blank line ends a sentence, a single line break does
    not. Thai hardly marks its sentences: a paragraph is then one.
    """
    spans = []
    for start, stop in _with_more_stops(text, _library_spans(text, language)):
        inner = text[start:stop].strip()
        if inner:
            begin = text.index(inner[0], start)
            spans.append(Span(begin, begin + len(inner)))
    return spans


def _library_spans(text: str, language: str) -> Iterator[tuple[int, int]]:
    """Yield what the library finds, block by block.

    Of a block the second half is context: a quotation may close there. The next block begins with the
    sentence that runs into that half; a sentence longer than a block goes on in the next.
    """
    begin, opened = 0, 0
    while begin < len(text):
        block = text[begin : begin + _BLOCK_CHARACTERS]
        ends = [begin + found["end_index"] for found in get_sentence_boundaries(language, block)]
        if begin + len(block) < len(text):
            early = [end for end in ends if end <= begin + _BLOCK_CHARACTERS // 2]
            ends = early or ends[:-1]
        for end in ends:
            yield opened, end
            opened = end
        begin = ends[-1] if ends else begin + len(block)
    if opened < len(text):
        yield opened, len(text)


def _with_more_stops(text: str, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        for found in _MORE_STOPS.finditer(text, start, stop):
            yield start, found.end()
            start = found.end()
        if start < stop:
            yield start, stop
