"""NDJSON bodies of documents: read batch by batch, so that memory is bounded whatever their length."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
from fastapi.exceptions import RequestValidationError

from embedsvc.collections.collection import Document
from embedsvc.errors import InvalidInputError
from embedsvc.server.errors import describe_violation
from embedsvc.server.requests.body import validated
from embedsvc.server.requests.collections import DocumentBody
from embedsvc.server.requests.lines import numbered_lines

_BATCH_BYTES = 4_000_000  # of lines
_PLACE = re.compile(r"\bdocuments\[(\d+)\]")


@dataclass(frozen=True)
class BatchLimits:
    """The longest line in bytes, and the most documents that are written in one step."""

    line_bytes: int
    documents: int


@dataclass
class DocumentBatch:
    """Documents that are written in one step, and the lines they came from. No id is there twice."""

    documents: list[Document] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    size: int = 0
    ids: set[str] = field(default_factory=set)

    def is_full(self, limits: BatchLimits) -> bool:
        return len(self.documents) >= limits.documents or self.size >= _BATCH_BYTES

    def add(self, number: int, document: Document, size: int) -> None:
        self.documents.append(document)
        self.lines.append(number)
        self.ids.add(document.id)
        self.size += size

    def at_line(self, message: str) -> str:
        """Return an error's message with the lines for the positions in this batch."""
        return _PLACE.sub(lambda found: f"line {self.lines[int(found[1])]}: document", message)


async def document_batches(chunks: AsyncIterator[bytes], limits: BatchLimits) -> AsyncIterator[DocumentBatch]:
    """Yield the documents of an NDJSON body in batches; at a wrong line raise InvalidInputError naming it.

    An id that comes again begins a new batch, so that the later document takes the place of the earlier
    one. Empty lines are passed over.
    """
    batch = DocumentBatch()
    async for number, line in numbered_lines(chunks, limits.line_bytes):
        if not line:
            continue
        document = _parsed(line, number)
        if batch.is_full(limits) or document.id in batch.ids:
            yield batch
            batch = DocumentBatch()
        batch.add(number, document, len(line))
    if batch.documents:
        yield batch


def _parsed(line: bytes, number: int) -> Document:
    try:
        return validated(DocumentBody, orjson.loads(line)).document()
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"line {number} is not valid JSON: {error}", param="documents") from error
    except RequestValidationError as error:
        message, _ = describe_violation(error.errors()[0])
        message = message.replace("the body", "the document", 1)
        raise InvalidInputError(f"line {number}: {message}", param="documents") from error
