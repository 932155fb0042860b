"""Verification: the database, every vector and the saved index against each other. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from embedsvc.collections.collection import INDEX, Collection
from embedsvc.collections.live_index import debiased_rows
from embedsvc.collections.metadata import terms_of_json
from embedsvc.collections.schema import document_crc, passage_crc
from embedsvc.collections.snapshots import open_snapshot
from embedsvc.collections.store import identity_of
from embedsvc.collections.views import View
from embedsvc.errors import EmbedsvcError
from indexing import IndexingError

_CLOSE = 1e-4  # two roundings of the same stored vector differ by less


@dataclass
class VerifyReport:
    """What a verification found wrong, in words; and what it looked at: counts by name."""

    problems: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(collection: Collection) -> VerifyReport:
    """Check the database, every stored vector and the index against each other; change nothing."""
    report = VerifyReport()
    try:
        report.problems += [f"database: {line}" for line in collection.store.check_integrity()]
        with collection.store.reading() as view:
            report.problems += _tables(view, report)
            report.problems += _index(view, collection, report)
    except EmbedsvcError as error:
        report.problems.append(error.message)
    except (TypeError, ValueError) as error:  # JSON, numbers or blobs that are none any more
        report.problems.append(f"database: a value is damaged: {error}")
    return report


def _tables(view: View, report: VerifyReport) -> Iterator[str]:
    count = view.number
    documents = report.checked["documents"] = view.count()
    report.checked["passages"] = count("SELECT count(*) FROM passages")
    for what, sql in (
        (
            "documents have no passage",
            "SELECT count(*) FROM documents WHERE row NOT IN (SELECT document FROM passages)",
        ),
        (
            "passages belong to no document",
            "SELECT count(*) FROM passages WHERE document NOT IN (SELECT row FROM documents)",
        ),
    ):
        if wrong := count(sql):
            yield f"{wrong} {what}"
    for table in ("documents", "passages"):
        if (last := view.last_row(table)) < count(f"SELECT coalesce(max(row), 0) FROM {table}"):
            yield f"the highest row of {table} is recorded as {last}, and there are higher ones"
    yield from _checksums(view)
    if (words := count("SELECT count(*) FROM lexical_docsize")) != documents:
        yield f"words are kept of {words} documents; there are {documents}"
    yield from _terms(view, report)


def _terms(view: View, report: VerifyReport) -> Iterator[str]:
    """Compare what filters know with the metadata: by number and by sum of hashes, in any order."""
    kept = view.connection.execute(
        "SELECT document, name, kind, value FROM terms LEFT JOIN fields USING (field)"
    )
    metadata = view.connection.execute("SELECT row, metadata FROM documents WHERE metadata IS NOT NULL")
    wanted = ((row, *astuple(term)) for row, text in metadata for term in terms_of_json(text))
    (terms, known), (expected, right) = _count_and_sum(kept), _count_and_sum(wanted)
    report.checked["terms"] = terms
    if terms != expected:
        yield f"filters know {terms} values of metadata; the documents have {expected}"
    elif known != right:
        yield "filters know other values of metadata than the documents have"


def _count_and_sum(items: Iterable[tuple[Any, ...]]) -> tuple[int, int]:
    count = total = 0
    for item in items:
        count, total = count + 1, total + hash(item)
    return count, total


def _checksums(view: View) -> Iterator[str]:
    """Compare every document and passage with its checksum."""
    select = view.connection.execute
    documents = select("SELECT row, id, language, metadata, text, crc FROM documents")
    if wrong := [values[1] for *values, crc in documents if crc != document_crc(*values)]:
        yield f"{len(wrong)} documents are damaged: {', '.join(map(repr, wrong[:10]))}"
    passages = select("SELECT row, document, start, stop, language, vector, crc FROM passages")
    damaged = [row for row, *owner, vector, crc in passages if crc != passage_crc(row, tuple(owner), vector)]
    if damaged:
        yield f"{len(damaged)} passages are damaged: {', '.join(map(str, damaged[:10]))}"


def _index(view: View, collection: Collection, report: VerifyReport) -> Iterator[str]:
    passages = view.passages_after(0, identity_of(view).dimension)
    report.checked["vectors"] = len(passages)
    try:
        opened = open_snapshot(view, collection.path / INDEX)
    except (IndexingError, OSError) as error:
        yield f"index: {error}"
        return
    if opened is None:
        return
    report.checked["indexed"] = opened.base.alive_count
    place = opened.base.positions(passages.rows)
    held = np.isin(passages.rows, opened.base.rows)
    record = view.snapshot()
    if record is not None and not held[passages.rows <= record.last_row].all():
        yield "index: passages that it should hold are missing"
    stored = debiased_rows(opened.debias, passages).vectors[held]
    difference = float(np.abs(opened.base.index.vectors[place] - stored).max(initial=0.0))
    if difference > _CLOSE:
        yield f"index: its vectors differ from the stored ones by up to {difference:.2g}"
