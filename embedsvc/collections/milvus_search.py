"""The query path over Milvus: it finds candidates; how they are fused, balanced and grouped is ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document
from embedsvc.collections.filters import check_fields, check_group
from embedsvc.collections.milvus_client import Row
from embedsvc.collections.milvus_filters import (
    all_of,
    filter_expression,
    joined_fields,
    languages_expression,
)
from embedsvc.collections.milvus_rows import FOUND_FIELDS, MilvusRows
from embedsvc.collections.milvus_schema import terms
from embedsvc.collections.request import SearchRequest
from embedsvc.collections.segments import Candidates, Restriction
from embedsvc.collections.views import LANGUAGE, StoredPassage
from embedsvc.search import Query, Scorers, Search, Trace

_MOST = 16_384  # hits of one search in Milvus
_QUERIES = 64  # of one call, whose answer carries the texts of all hits

Ask = Callable[[int], list[tuple[float, Row]]]


class MilvusSearch(Search):
    """One request against the rows of a collection in Milvus."""

    def __init__(self, rows: MilvusRows, request: SearchRequest, scorers: Scorers) -> None:
        self._stored = rows
        self._request = request
        self._scorers = scorers
        self._trace = Trace(request.explain)
        self._filter = self._filter_expression()
        self._within = Restriction(languages=request.languages)
        self._found: list[Row] = []  # a candidate's row is a place in it
        self._places: dict[str, int] = {}  # by pk
        self._documents: dict[str, int] = {}  # by key
        self._revisions: dict[str, int | None] = {}  # by key

    def _filter_expression(self) -> str:
        """Return the filter; raise InvalidInputError for fields that no document has."""
        request = self._request
        if request.filter is None and request.group_by is None:
            return ""
        known = joined_fields(self._stored.notes().fields)
        if request.group_by is not None:
            check_group(request.group_by, list(known))
        if request.filter is None:
            return ""
        check_fields(request.filter, list(known))
        return filter_expression(request.filter, known)

    def _facets(self) -> dict[str, int]:
        return self._stored.languages(self._filter, self._request.languages)

    def _languages(self) -> dict[str, int]:
        return dict.fromkeys(self._stored.notes().languages, 1)

    def _expression(self, within: Restriction) -> str:
        return all_of(languages_expression(within.languages), self._filter)

    def _dense(
        self, vectors: Sequence[NDArray[np.float32] | None], k: int, within: Restriction
    ) -> list[Candidates]:
        matrix = np.stack([vector for vector in vectors if vector is not None])
        expression = self._expression(within)
        self._trace.plan |= {"index": {"backend": "milvus", "expression": expression}}
        with self._trace.timed("index"):
            first = self._nearest(matrix, k, expression)
            return [
                self._documents_of(hits, k, self._deeper(vector, expression))
                if vector.any()
                else self._candidates([])
                for hits, vector in zip(first, matrix, strict=True)
            ]

    def _nearest(
        self, matrix: NDArray[np.float32], limit: int, expression: str
    ) -> list[list[tuple[float, Row]]]:
        table = self._stored.table
        return [
            hits
            for begin in range(0, len(matrix), _QUERIES)
            for hits in table.nearest(
                matrix[begin : begin + _QUERIES], "vector", limit, expression, FOUND_FIELDS
            )
        ]

    def _deeper(self, vector: NDArray[np.float32], expression: str) -> Ask:
        return lambda limit: self._nearest(vector[None], limit, expression)[0]

    def _lexical(self, text: str, k: int, within: Restriction) -> Candidates:
        with self._trace.timed("words"):
            words = terms(text, self._query_language(text))
            if not words:
                return self._candidates([])
            expression = self._expression(within)

            def ask(limit: int) -> list[tuple[float, Row]]:
                (hits,) = self._stored.table.nearest([words], "bm25", limit, expression, FOUND_FIELDS)
                # milvus-lite gives the negative of the score, a cluster the score.
                return [(abs(score), row | {"directed": True}) for score, row in hits if score]

            return self._documents_of(ask(k), k, ask)

    def _documents_of(self, hits: list[tuple[float, Row]], k: int, ask: Ask) -> Candidates:
        """Return the best row of each document; look deeper where rows of one document crowd out others."""
        asked = k
        while True:
            kept = self._best_rows(hits)
            if len(kept) >= k or len(hits) < asked or asked >= _MOST:
                return self._candidates(kept[:k])
            asked = min(asked * 2, _MOST)
            hits = ask(asked)

    def _best_rows(self, hits: list[tuple[float, Row]]) -> list[tuple[float, Row]]:
        """Return each document's best row, without notes and what an interrupted upsert has left."""
        hits = [(score, row) for score, row in hits if row["directed"]]
        later = {row["key"] for _, row in hits if row["number"] > 0}
        self._revisions |= self._stored.revisions(later - self._revisions.keys())
        best: dict[str, tuple[float, Row]] = {}
        for score, row in hits:
            if row["number"] == 0 or self._revisions[row["key"]] == row["revision"]:
                best.setdefault(row["key"], (score, row))
        return list(best.values())

    def _candidates(self, hits: Sequence[tuple[float, Row]]) -> Candidates:
        for _, row in hits:
            if row["pk"] not in self._places:
                self._places[row["pk"]] = len(self._found)
                self._found.append(row)
            self._documents.setdefault(row["key"], len(self._documents))
        return Candidates(
            np.array([score for score, _ in hits], np.float32),
            np.array([self._places[row["pk"]] for _, row in hits], np.int64),
            np.array([self._documents[row["key"]] for _, row in hits], np.int64),
            np.array([row["language"] for _, row in hits], LANGUAGE),
        )

    def _passages(self, rows: Sequence[int]) -> list[StoredPassage]:
        found = [self._found[place] for place in rows]
        documents = self._stored.documents_of(found)
        return [_passage(place, row, documents[row["key"]]) for place, row in zip(rows, found, strict=True)]

    def _metadata_of(self, documents: Sequence[int]) -> dict[int, dict[str, Any] | None]:
        wanted = set(documents)
        return {
            self._documents[row["key"]]: row["metadata"]
            for row in self._found
            if self._documents[row["key"]] in wanted
        }

    def _with_passages(self, query: Query, found: Candidates) -> Candidates:  # noqa: ARG002
        return found  # those found by their words, too, come as passages

    def _plan(self) -> dict[str, Any]:
        timings = {name: round(spent, 3) for name, spent in self._trace.timings_ms.items()}
        return self._trace.plan | {"mode": self._request.mode, "timings_ms": timings}


def _passage(place: int, row: Row, document: Document) -> StoredPassage:
    metadata = None if document.metadata is None else json.dumps(document.metadata)
    return StoredPassage(
        place, row["start"], row["stop"], document.id, document.text, str(document.language), metadata
    )
