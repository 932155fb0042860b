"""Long documents as overlapping passages that the model takes whole, cut between sentences."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, TextTooLongError
from embedsvc.options import EncodeOptions
from embedsvc.sentences import Span, sentence_spans

__all__ = ["PassageSplitter", "Span"]

_WINDOW_CHARACTERS = 1_000_000  # tokenized at once: bounds memory (about 60 bytes a character)
_WORD = re.compile(r"\S+")
_GRAPHEMES = regex.compile(r"\X{1,4}")  # four at a time, for words of a million of them
_GRAPHEME = regex.compile(r"\X")
_SEAM_TOKENS = 2  # kept free where passages are cut without white space: the ends may become other tokens
# A tokenizer makes at most one token of a byte of normalised text. Unicode normalisation and lower case
# make at most three bytes of one, but for these characters (squared words and two ligatures).
_MOST_GROWTH = 3
_GROWS_MORE = re.compile("[\u2057\u2a0c\u321d\u321e\u327c\u327d\u3300-\u33ff\ufdfa\ufdfb]")

_Pieces = Callable[[str, Span, str], Iterator[Span]]


@dataclass(frozen=True)
class _Part:
    """A part of text ``row`` that is tokenized next; ``tries`` counts how often it was cut already."""

    row: int
    span: Span
    tries: int = 0


@dataclass(frozen=True)
class _Tokens:
    """Where the tokens of a part end, ascending: positions in its text plus ``shift``, prompt included."""

    ends: list[int]
    shift: int

    def before(self, position: int) -> int:
        return bisect_right(self.ends, position + self.shift)

    def within(self, span: Span) -> int:
        return self.before(span.stop) - self.before(span.start)


class PassageSplitter:
    """Split texts into passages that the encoder takes as documents without cutting them.

    ``max_tokens`` is the longest passage, special tokens and the model's prompt included (None: the model's
    own limit; a model without one then splits nothing). Neighbours share whole sentences of at most
    ``overlap_tokens``, or words where a sentence itself had to be cut.
    Raises InvalidInputError when these leave no room for text.
    """

    def __init__(self, encoder: Encoder, max_tokens: int | None = None, overlap_tokens: int = 32) -> None:
        options = EncodeOptions(prompt_name=encoder.document_prompt_name, max_tokens=max_tokens)
        encoder.check(options)
        if overlap_tokens < 0:
            raise InvalidInputError(f"overlap_tokens = {overlap_tokens}; it must be at least 0")
        self._tokenizer = encoder.tokenizer
        self._lead = encoder.lead(options)
        self._limit = encoder.limit(options)
        self._overlap = overlap_tokens
        if self._limit is None:
            return
        prompt_tokens = len(self._tokenizer.ids([self._lead])[0]) if self._lead else 0
        if prompt_tokens >= self._limit:
            raise InvalidInputError(
                f"the prompt has {prompt_tokens} tokens; the limit is {self._limit}, text included",
                param="max_tokens",
            )
        growth = 1 if self._lead.isascii() else 11  # that of U+FDFA
        # One more token may mark the beginning of a text.
        self._room_bytes = self._limit - 1 - growth * len(self._lead.encode())

    def split(self, texts: Sequence[str], languages: Sequence[str]) -> list[list[Span]]:
        """Return the passages of each text (visible, valid Unicode; with its language), in order.

        A text that fits is one passage, (0, its length). Otherwise passages have no white space at their
        ends, each starts and stops after the one before, and together they hold everything but white space.
        Raises TextTooLongError for a single character with more tokens than the limit.
        """
        found = [[Span(0, len(text))] for text in texts]
        if self._limit is None:
            return found
        long = [row for row, text in enumerate(texts) if not self._surely_fits(text)]
        passages: dict[int, list[Span]] = {row: [] for row in long}
        parts = [_Part(row, found[row][0]) for row in long]
        while parts:
            remaining: list[_Part] = []
            for window in _windows(parts):
                for part, tokens in zip(window, self._tokens(window, texts), strict=True):
                    if len(tokens.ends) <= self._limit:
                        passages[part.row].append(part.span)
                    else:
                        spans = self._cut(part, tokens, texts[part.row], languages[part.row])
                        remaining += [_Part(part.row, span, part.tries + 1) for span in spans]
            parts = remaining
        for row, spans in passages.items():
            found[row] = _in_order(spans)
        return found

    def _surely_fits(self, text: str) -> bool:
        """True when a text has few enough bytes, whatever its tokens."""
        if text.isascii():
            return len(text) <= self._room_bytes
        size = len(text.encode()) * _MOST_GROWTH
        return size <= self._room_bytes and not _GROWS_MORE.search(text)

    def _tokens(self, parts: Sequence[_Part], texts: Sequence[str]) -> list[_Tokens]:
        given = [self._lead + texts[part.row][part.span.start : part.span.stop] for part in parts]
        found = self._tokenizer.token_ends(given)
        return [
            _Tokens(list(accumulate(ends, max)), len(self._lead) - part.span.start)
            for part, ends in zip(parts, found, strict=True)
        ]

    def _cut(self, part: _Part, tokens: _Tokens, text: str, language: str) -> list[Span]:
        """Cut a part that is too long: into passages of the limit, or later into about halves.

        A passage by itself may have other tokens than within the text, so a second cut can be needed.
        """
        assert self._limit is not None
        count = tokens.within(part.span)
        room = max(self._limit - (len(tokens.ends) - count), 1)
        if part.tries:
            room = max(min(room, count * 3 // 5), 1)
        units = list(_units(text, part.span, language, tokens, room))
        if units == [part.span]:
            raise TextTooLongError(
                f"the character {text[part.span.start]!r} alone has {len(tokens.ends)} tokens, "
                f"prompt included; the limit is {self._limit}"
            )
        if any(text[unit.start - 1 : unit.start].strip() for unit in units[1:]):
            room = max(room - _SEAM_TOKENS, 1)
        return _pack(units, tokens, room, min(self._overlap, room // 2))


def _units(
    text: str, span: Span, language: str, tokens: _Tokens, room: int, levels: Sequence[_Pieces] | None = None
) -> Iterator[Span]:
    """Yield the sentences of a span; of those too long the words, of these the graphemes, then characters."""
    pieces, *finer = _LEVELS if levels is None else levels
    for unit in pieces(text, span, language):
        if not finer or tokens.within(unit) <= room:
            yield unit
        else:
            yield from _units(text, unit, language, tokens, room, finer)


def _sentences(text: str, span: Span, language: str) -> Iterator[Span]:
    for start, stop in sentence_spans(text[span.start : span.stop], language):
        yield Span(span.start + start, span.start + stop)


def _words(text: str, span: Span, _: str) -> Iterator[Span]:
    return (Span(*found.span()) for found in _WORD.finditer(text, *span))


def _few_graphemes(text: str, span: Span, _: str) -> Iterator[Span]:
    return (Span(*found.span()) for found in _GRAPHEMES.finditer(text, *span))


def _graphemes(text: str, span: Span, _: str) -> Iterator[Span]:
    return (Span(*found.span()) for found in _GRAPHEME.finditer(text, *span))


def _characters(_text: str, span: Span, _: str) -> Iterator[Span]:
    return (Span(position, position + 1) for position in range(*span))


_LEVELS: tuple[_Pieces, ...] = (_sentences, _words, _few_graphemes, _graphemes, _characters)


def _pack(units: Sequence[Span], tokens: _Tokens, room: int, overlap: int) -> list[Span]:
    """Join neighbouring units greedily; the next passage starts with the last units of the one before."""
    before = [tokens.before(unit.start) for unit in units]
    after = [tokens.before(unit.stop) for unit in units]
    passages: list[Span] = []
    first = end = 0
    while end < len(units):
        end = max(bisect_right(after, before[first] + room, lo=first), first + 1)
        passages.append(Span(units[first].start, units[end - 1].stop))
        if end < len(units):
            least = max(after[end - 1] - overlap, after[end] - room)
            first = max(bisect_left(before, least, hi=end), first + 1) if overlap else end
    return passages


def _in_order(spans: list[Span]) -> list[Span]:
    """Sort the passages of a text, without those that lie within another."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.stop)):
        if not kept or span.stop > kept[-1].stop:
            kept.append(span)
    return kept


def _windows(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    window: list[_Part] = []
    size = 0
    for part in parts:
        length = part.span.stop - part.span.start
        if window and size + length > _WINDOW_CHARACTERS:
            yield window
            window, size = [], 0
        window.append(part)
        size += length
    if window:
        yield window
