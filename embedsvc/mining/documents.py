"""Documents of two languages: which are translations of each other, their beads, and the sentences left over.

A document's vector is the mean of its sentences' vectors, weighted by length and by how few documents have
the same sentence (menus and footers say nothing), minus the mean of its side. Documents are paired one to
one by ratio margin; a pair stands when enough of its sentences, aligned, are alike beyond chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, check_texts
from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.alignment.align import AlignOptions, align_encoded, encoded_document
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.document import Document, document_of_text
from embedsvc.mining.alignment.texts import TextSide
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.records import Pair, PairSide, Record
from embedsvc.rows import json_rows
from embedsvc.textfiles import iterate_lines
from indexing import nearest_both_ways, normalize_rows

Floats = NDArray[np.float32]
_NEIGHBOURS = 4
_LEAST_MARGIN = 0.99  # no worse than the neighbourhood; what passes is aligned and judged by that
_LEAST_AGREEMENT = 0.35
_SPREADS = 2.5
_SAMPLES = 5_000


@dataclass(frozen=True)
class TextDocument:
    """A document's id, its sentences, and the line of the file it stands in, from 1."""

    id: str
    document: Document
    line: int


@dataclass(frozen=True)
class DocumentPair:
    """Two documents by index, their ratio margin, and the share of their sentences that agree."""

    source: int
    target: int
    score: float
    agreement: float


@dataclass(frozen=True)
class MinedDocuments:
    """The document pairs, their beads with two sides as pairs, and the sentences without counterpart."""

    document_pairs: list[DocumentPair]
    pairs: list[Pair]
    source_left: list[Record]
    target_left: list[Record]


def read_documents(path: Path, language: str | None = None) -> list[TextDocument]:
    """Read a .jsonl file of documents: ``{"id", "text" or "sentences", "language"}`` per line.

    Without an id a document has the number of its line; ``language`` is that of those that name none.
    Raises InvalidInputError naming file and line: neither or both of text and sentences, no sentence, a
    wrong type, an id that came before.
    """
    found: dict[str, TextDocument] = {}
    for line, row in json_rows(path, iterate_lines(path)):
        document = _text_document(row, f"{path} line {line}", line, language)
        if document.id in found:
            raise InvalidInputError(
                f"{path} line {line}: id {document.id!r} stands on line {found[document.id].line} too"
            )
        found[document.id] = document
    if not found:
        raise InvalidInputError(f"{path} has no document")
    return list(found.values())


def _text_document(row: dict[str, Any], where: str, line: int, language: str | None) -> TextDocument:
    text, sentences = row.get("text"), row.get("sentences")
    if (text is None) == (sentences is None):
        raise InvalidInputError(f'{where}: one of "text" and "sentences" is expected')
    code = row.get("language", language)
    if not (code is None or isinstance(code, str)):
        raise InvalidInputError(f'{where}: "language" is {code!r}; expected a code such as "de"')
    name = row.get("id", line)
    if not isinstance(name, str | int):
        raise InvalidInputError(f'{where}: "id" is {name!r}; expected a string or a whole number')
    if isinstance(text, str):
        check_texts([text], name=f"{where}: text")
        return TextDocument(str(name), document_of_text(text, code), line)
    if not isinstance(sentences, list) or not sentences:
        raise InvalidInputError(f"{where}: a string in text or a list in sentences is expected")
    check_texts(sentences, name=f"{where}: sentences")
    code = None if code is None else normalize_language(code)
    return TextDocument(str(name), Document(sentences, [line] * len(sentences), code), line)


def sentence_weights(documents: Sequence[TextDocument]) -> list[NDArray[np.float64]]:
    """Return how much the sentences of each document say about it: the fewer documents share one, the more.

    A sentence in more than two documents and a tenth of all says nothing: 0.
    """
    keys = [[duplicate_key(text) for text in item.document.sentences] for item in documents]
    frequencies = Counter(key for document in keys for key in set(document))
    counts = [np.array([frequencies[key] for key in document], np.float64) for document in keys]
    total = len(documents)
    return [np.where(found > max(2, total / 10), 0, 1 + np.log(total / found)) for found in counts]


def document_vectors(sides: Sequence[TextSide], weights: Sequence[NDArray[np.float64]]) -> Floats:
    """Return unit vectors (documents, dim) of the documents of one language, zeros where nothing is left."""
    sums = [
        (weight * side.tokens[0]).astype(np.float32) @ side.blocks.vectors[0]
        for side, weight in zip(sides, weights, strict=True)
    ]
    vectors = _unit(np.stack(sums))
    return _unit(vectors - vectors.mean(axis=0) * (1 - 1 / len(vectors)))


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def pair_documents(source: Floats, target: Floats) -> list[tuple[int, int, float]]:
    """Return (source row, target row, ratio margin) of unit vectors, best first, each row once at most."""
    rows = [np.flatnonzero(side.any(axis=1)) for side in (source, target)]
    if not all(map(len, rows)):
        return []
    both = nearest_both_ways(normalize_rows(source[rows[0]]), normalize_rows(target[rows[1]]), _NEIGHBOURS)
    found = mined_pairs(both, "ratio", "max", threshold=_LEAST_MARGIN)
    columns = rows[0][found.source_rows], rows[1][found.target_rows], found.scores
    return [*zip(*(column.tolist() for column in columns), strict=True)]


def mine_documents(
    source: Sequence[TextDocument],
    target: Sequence[TextDocument],
    encoder: Encoder,
    options: AlignOptions | None = None,
) -> MinedDocuments:
    """Pair the documents, align each pair, and say which sentences are left for mining across documents.

    A single document on each side is a pair without question. All sentences of both sides are encoded once
    and kept in memory. Raises what `align` raises, and InvalidInputError for a side without documents.
    """
    options = options or AlignOptions()
    if not source or not target:
        raise InvalidInputError("there is no document on one side")
    sides = [_encoded(documents, encoder, options) for documents in (source, target)]
    weights = [sentence_weights(documents) for documents in (source, target)]
    vectors = [document_vectors(*side) for side in zip(sides, weights, strict=True)]
    least = _beyond_chance(sides[0], sides[1])
    document_pairs, pairs = [], list[Pair]()
    used: tuple[set[tuple[int, int]], set[tuple[int, int]]] = (set(), set())
    for i, j, score in pair_documents(vectors[0], vectors[1]):
        beads = align_encoded(sides[0][i], sides[1][j], encoder, options)
        agreement = agreeing_share(beads, (weights[0][i] > 0, weights[1][j] > 0), least)
        if agreement < _LEAST_AGREEMENT and len(source) * len(target) > 1:
            continue
        document_pairs.append(DocumentPair(i, j, score, agreement))
        for bead in beads:
            if bead.source and bead.target:
                pairs.append(_pair(bead, source[i], target[j]))
                used[0].update((i, row) for row in bead.source)
                used[1].update((j, row) for row in bead.target)
    return MinedDocuments(document_pairs, pairs, [*_left(source, used[0])], [*_left(target, used[1])])


def _encoded(documents: Sequence[TextDocument], encoder: Encoder, options: AlignOptions) -> list[TextSide]:
    return [encoded_document(item.document.sentences, item.id, encoder, options) for item in documents]


def _beyond_chance(source: Sequence[TextSide], target: Sequence[TextSide]) -> float:
    """Return how far above its mean the cosine of random sentences of the two languages hardly comes."""
    generator = np.random.default_rng(0)
    rows = [np.concatenate([side.blocks.vectors[0] for side in sides]) for sides in (source, target)]
    picked = [side[generator.integers(0, len(side), _SAMPLES)] for side in rows]
    cosines = np.einsum("ij,ij->i", *picked)
    middle = np.median(cosines)
    return float(_SPREADS * (middle - np.quantile(cosines, 0.1587)))


def agreeing_share(
    beads: Sequence[Bead], telling: tuple[NDArray[np.bool_], NDArray[np.bool_]], least: float
) -> float:
    """Return the share of sentences in beads with two sides and at least so large a score.

    Only sentences count that are ``telling``, (n,) and (m,); without any the share is 0.
    """
    agreeing = every = 0
    for bead in beads:
        count = sum(
            int(side[list(rows)].sum())
            for side, rows in zip(telling, (bead.source, bead.target), strict=True)
        )
        every += count
        agreeing += count if bead.source and bead.target and bead.score >= least else 0
    return agreeing / every if every else 0.0


def _pair(bead: Bead, source: TextDocument, target: TextDocument) -> Pair:
    return Pair(
        score=bead.score,
        cosine=bead.cosine,
        source=_side(source, bead.source, bead.source_text),
        target=_side(target, bead.target, bead.target_text),
        margin="distance",
    )


def _side(document: TextDocument, rows: tuple[int, ...], text: str) -> PairSide:
    return PairSide(_id(document, rows), text, document.line, document=document.id)


def _id(document: TextDocument, rows: Sequence[int]) -> str:
    return f"{document.id}:{','.join(map(str, rows))}"


def _left(documents: Sequence[TextDocument], used: set[tuple[int, int]]) -> Iterator[Record]:
    for i, document in enumerate(documents):
        for row, text in enumerate(document.document.sentences):
            if (i, row) not in used:
                yield Record(document.line, text, _id(document, [row]), document.id)
