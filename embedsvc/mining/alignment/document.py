"""The sentences of a document, each with its line, for alignment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedsvc.errors import InvalidInputError
from embedsvc.languages import detect_language, normalize_language
from embedsvc.sentences import Span, sentence_spans
from embedsvc.textfiles import iterate_lines

Split = Literal["lines", "sentences"]

_DETECTED_CHARACTERS = 5_000
_CLAUSE_CHARACTERS = 20  # of Thai; a sentence has about 120
_BLANK_LINE = re.compile(r"\n\s*\n")
# Burmese ends its sentences with this sign only; every other end that the library finds is wrong.
_BURMESE_SENTENCE = re.compile(r"[^\u104b]+(?:\u104b+|$)")
_NO_SPACE_AFTER = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]$")
_NO_SPACE_BEFORE = re.compile("^[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]")


@dataclass(frozen=True)
class Document:
    """Sentences in order, on one line each, with the line of the file (from 1) where each begins."""

    sentences: list[str]
    lines: list[int]
    language: str | None = None


def read_document(path: Path, split: Split = "lines", language: str | None = None) -> Document:
    """Read a text file, .gz, .xz and .zst too: every line that is not blank a sentence, or all as one text.

    Raises InvalidInputError naming file and line for bytes that are not UTF-8, and for a file without a
    sentence.
    """
    lines = iterate_lines(path)
    if split == "sentences":
        return _not_empty(document_of_text("\n".join(line for _, line in lines), language), str(path))
    kept = [(number, " ".join(line.split())) for number, line in lines if line.strip()]
    code = None if language is None else normalize_language(language)
    document = Document([text for _, text in kept], [number for number, _ in kept], code)
    return _not_empty(document, str(path))


def _not_empty(document: Document, name: str) -> Document:
    if not document.sentences:
        raise InvalidInputError(f"{name} has no sentence: it is empty, or all lines are blank")
    return document


def document_of_text(text: str, language: str | None = None) -> Document:
    """Split a text into sentences; ``language`` is detected when it is None.

    A blank line ends a sentence, a single line break does not. Thai does not mark its sentences: it is cut
    at spaces into clauses of some 20 characters or more, which alignment joins again.
    """
    code = (
        normalize_language(language) if language is not None else detect_language(text[:_DETECTED_CHARACTERS])
    )
    spans = [span for span in _spans(text, code) if text[span.start : span.stop].strip()]
    sentences = [" ".join(text[start:stop].split()) for start, stop in spans]
    lines, line, seen = [], 1, 0
    for start, _ in spans:
        line, seen = line + text.count("\n", seen, start), start
        lines.append(line)
    return Document(sentences, lines, code)


def _spans(text: str, language: str) -> Iterable[Span]:
    if language == "th":
        return _clauses(text)
    if language == "my":
        return _burmese_sentences(text)
    return sentence_spans(text, language)


def _paragraphs(text: str) -> Iterator[Span]:
    start = 0
    for blank in _BLANK_LINE.finditer(text):
        yield Span(start, blank.start())
        start = blank.end()
    yield Span(start, len(text))


def _burmese_sentences(text: str) -> Iterator[Span]:
    for paragraph in _paragraphs(text):
        for found in _BURMESE_SENTENCE.finditer(text, *paragraph):
            skipped = len(found[0]) - len(found[0].lstrip())
            yield Span(found.start() + skipped, found.end())


def _clauses(text: str) -> Iterator[Span]:
    for paragraph in _paragraphs(text):
        start = None
        stop = paragraph.start
        for word in re.compile(r"\S+").finditer(text, *paragraph):
            start = word.start() if start is None else start
            stop = word.end()
            if stop - start >= _CLAUSE_CHARACTERS:
                yield Span(start, stop)
                start = None
        if start is not None:
            yield Span(start, stop)


def joined(sentences: Iterable[str]) -> str:
    """Return consecutive sentences as one text: a space between, but none where Chinese or Japanese meet."""
    text = ""
    for sentence in sentences:
        spaced = text and not (_NO_SPACE_AFTER.search(text[-1:]) or _NO_SPACE_BEFORE.search(sentence[:1]))
        text += f" {sentence}" if spaced else sentence
    return text
