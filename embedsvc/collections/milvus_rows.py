"""Documents from the rows that Milvus holds of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from embedsvc.collections.document import Document
from embedsvc.collections.milvus_client import MilvusTable, Row
from embedsvc.collections.milvus_filters import all_of
from embedsvc.collections.milvus_schema import NOTE_LANGUAGE, Notes, read_notes
from embedsvc.collections.verify import VerifyReport
from embedsvc.errors import StorageError

_KEYS = 1_000  # of one call
_ROWS = 500  # of one answer with texts; Milvus sends 64 MB at most
DOCUMENT_FIELDS = ("key", "document", "language", "number", "rows", "revision", "text", "metadata")
FOUND_FIELDS = (*DOCUMENT_FIELDS, "pk", "directed", "start", "stop")
IS_DOCUMENT = "number == 0"


class MilvusRows:
    """Reads of one collection."""

    def __init__(self, table: MilvusTable) -> None:
        self.table = table

    def notes(self) -> Notes:
        """Return the languages and fields that documents have had."""
        return read_notes(self.table.query(f'language == "{NOTE_LANGUAGE}"', ["metadata"]))

    def languages(self, expression: str = "", wanted: Iterable[str] | None = None) -> dict[str, int]:
        """Return the documents per language, most first, among those that an expression lets through."""
        codes = self.notes().languages if wanted is None else set(wanted)
        counts = {
            code: self.table.count(all_of(IS_DOCUMENT, f'language == "{code}"', expression)) for code in codes
        }
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return {code: count for code, count in ranked if count}

    def revisions(self, keys: Iterable[str]) -> dict[str, int | None]:
        """Return the revision of each document that stands; None for one that is gone."""
        found: dict[str, int | None] = dict.fromkeys(keys)
        for part in chunks(list(found)):
            rows = self.table.query(all_of(IS_DOCUMENT, keys_expression(part)), ["key", "revision"])
            found |= {row["key"]: row["revision"] for row in rows}
        return found

    def documents_of(self, rows: Sequence[Row], *, vectors: bool = False) -> dict[str, Document]:
        """Return the documents of rows by key, put together where they have several.

        With ``vectors``, which the rows have to bring, a document of one passage has its own. Raises
        StorageError for a document that an interrupted upsert has left incomplete.
        """
        several = {row["key"]: row["rows"] for row in rows if row["rows"] > 1}
        parts: dict[str, list[Row]] = defaultdict(list)
        fields = [*DOCUMENT_FIELDS, "directed", "piece", *(["vector"] if vectors else [])]
        for keys in _parcels(several):
            for row in self.table.query(keys_expression(keys), fields):
                parts[row["key"]].append(row)
        for row in rows:
            if row["rows"] == 1:
                parts[row["key"]] = [row]
        return {key: _document(parts[key], vectors) for key in {row["key"] for row in rows}}

    def documents(self, expression: str, *, vectors: bool) -> Iterator[Document]:
        """Yield the documents that an expression lets through, in the order of their keys."""
        fields = [*DOCUMENT_FIELDS, "directed", "piece", *(["vector"] if vectors else [])]
        for page in self.table.pages(all_of(IS_DOCUMENT, expression), fields):
            documents = self.documents_of(page, vectors=vectors)
            yield from (documents[row["key"]] for row in page)


def verify_rows(rows: MilvusRows) -> VerifyReport:
    """Compare the rows of each document with what its row 0 says."""
    expected: dict[str, tuple[str, int, int]] = {}
    seen: Counter[tuple[str, int]] = Counter()
    for page in rows.table.pages("number >= 0", ["key", "document", "number", "rows", "revision"]):
        for row in page:
            seen[row["key"], row["revision"]] += 1
            if row["number"] == 0:
                expected[row["key"]] = row["document"], row["revision"], row["rows"]
    problems = [
        f"document {document!r} has {seen[key, revision]} of {wanted} rows; upsert it again"
        for key, (document, revision, wanted) in expected.items()
        if seen[key, revision] != wanted
    ]
    current = {(key, revision) for key, (_, revision, _) in expected.items()}
    left = sum(count for pair, count in seen.items() if pair not in current)
    if left:
        problems.append(f"{left} rows are left from interrupted upserts; no search returns them")
    return VerifyReport(problems, {"documents": len(expected), "rows": seen.total()})


def keys_expression(keys: Iterable[str]) -> str:
    """Return the expression for all rows of some documents."""
    return f"key in [{', '.join(repr(key) for key in keys)}]"


def chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the keys, as many at a time as one call may name."""
    for begin in range(0, len(keys), _KEYS):
        yield keys[begin : begin + _KEYS]


def _parcels(rows: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield keys, as many at a time as have the rows of one answer; ``rows`` is how many each has."""
    parcel: list[str] = []
    count = 0
    for key, own in rows.items():
        if parcel and count + own > _ROWS:
            yield parcel
            parcel, count = [], 0
        parcel.append(key)
        count += own
    if parcel:
        yield parcel


def _document(rows: list[Row], vectors: bool) -> Document:
    first = min(rows, key=lambda row: row["number"])
    current = [row for row in rows if row["revision"] == first["revision"]]
    if len(current) != first["rows"] or first["number"]:
        raise StorageError(
            f"document {first['document']!r} has {len(current)} of {first['rows']} rows in Milvus, from an "
            "upsert that was interrupted or still runs; upsert it again"
        )
    current.sort(key=lambda row: row["number"])
    text = "".join(row["text"] for row in current)
    vector = None
    if vectors and sum(row["piece"] == 0 for row in current) == 1 and first["directed"]:
        vector = np.array(first["vector"], np.float32)
    return Document(first["document"], text, first["language"], first["metadata"], vector)
