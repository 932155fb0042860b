"""From checked documents to what is stored: passages, vectors, words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document, metadata_json
from embedsvc.collections.lexical import analyze
from embedsvc.collections.maxsim import TokenScorer
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.passages import PassageSplitter, Span
from embedsvc.collections.schema import Identity
from embedsvc.collections.writer import Batch
from embedsvc.encoder import Encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError

_PLACE = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True)
class _Piece:
    """A passage that is to be encoded, of the document at a position of the batch."""

    position: int
    text: str


class Intake:
    """Turns documents into batches for the writer of one collection."""

    def __init__(self, identity: Identity, options: CollectionOptions, encoder: Encoder | None) -> None:
        self.identity = identity
        self._encoder = encoder
        self._splitter = self._tokens = None
        if encoder is not None:
            self._splitter = PassageSplitter(encoder, options.chunk_tokens, options.chunk_overlap)
            self._tokens = TokenScorer(encoder) if options.token_vectors else None

    def batch(self, documents: Sequence[Document]) -> Batch:
        """Return checked documents with all that is stored about them; errors name their positions."""
        spans = self._spans(documents)
        pieces = [
            _Piece(position, document.text[span.start : span.stop])
            for position, (document, own) in enumerate(zip(documents, spans, strict=True))
            for span in own
            if document.vector is None
        ]
        return Batch(
            documents,
            [metadata_json(document.metadata, "documents") for document in documents],
            spans,
            self._vectors(documents, spans, pieces),
            [analyze(document.text, document.language) for document in documents],
            self._token_vectors(documents, pieces),
        )

    def _spans(self, documents: Sequence[Document]) -> list[list[Span]]:
        """Return the passages of each document; one that brings its vector is one passage."""
        spans = [[Span(0, len(document.text))] for document in documents]
        split = [position for position, document in enumerate(documents) if document.vector is None]
        if split and self._splitter is None:
            raise InvalidInputError(
                f"documents[{split[0]}] has no vector, and the collection has no model to make one; "
                f"give it {self.identity.dimension} numbers",
                param="documents",
            )
        if split and self._splitter is not None:
            texts = [documents[position].text for position in split]
            languages = [documents[position].language or "und" for position in split]
            for position, own in zip(split, self._splitter.split(texts, languages), strict=True):
                spans[position] = own
        return spans

    def _vectors(
        self, documents: Sequence[Document], spans: Sequence[Sequence[Span]], pieces: Sequence[_Piece]
    ) -> NDArray[np.float32]:
        encoded = iter(self._encoded(pieces))
        vectors = np.empty((sum(map(len, spans)), self.identity.dimension), np.float32)
        row = 0
        for position, (document, own) in enumerate(zip(documents, spans, strict=True)):
            for _ in own:
                vectors[row] = next(encoded) if document.vector is None else self._own(document, position)
                row += 1
        given = np.array([d.vector is not None for d, own in zip(documents, spans, strict=True) for _ in own])
        if given.any():
            vectors[given] = _unit_rows(vectors[given])
        return vectors

    def _own(self, document: Document, position: int) -> NDArray[np.float32]:
        vector = document.vector
        if vector is None or vector.shape != (self.identity.dimension,):
            raise DimensionMismatchError(
                f"documents[{position}].vector has {0 if vector is None else len(vector)} numbers; "
                f"the collection has vectors of {self.identity.dimension}",
                param="documents",
            )
        return vector

    def _encoded(self, pieces: Sequence[_Piece]) -> NDArray[np.float32]:
        encoder = self._encoder
        if not pieces or encoder is None:
            return np.empty((0, self.identity.dimension), np.float32)
        try:
            vectors: NDArray[np.float32] = encoder.encode(
                [piece.text for piece in pieces], prompt_name=encoder.document_prompt_name, progress=False
            )
        except InvalidInputError as error:
            raise _of_document(error, pieces) from error
        return vectors

    def _token_vectors(self, documents: Sequence[Document], pieces: Sequence[_Piece]) -> list[bytes] | None:
        if self._tokens is None:
            return None
        for position, document in enumerate(documents):
            if document.vector is not None:
                raise InvalidInputError(
                    f"documents[{position}] brings a vector; a collection with token_vectors makes them all",
                    param="documents",
                )
        return self._tokens.stored([piece.text for piece in pieces])


def _of_document(error: InvalidInputError, pieces: Sequence[_Piece]) -> InvalidInputError:
    """The encoder's error about ``input[row]``, as an error about a document."""
    message = _PLACE.sub(lambda found: f"documents[{pieces[int(found[1])].position}]", error.message)
    return type(error)(message, param="documents")


def _unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scaled by the largest value first, so that the squares neither overflow nor vanish."""
    scaled = vectors / np.abs(vectors).max(axis=1, keepdims=True)
    rows: NDArray[np.float32] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return rows
