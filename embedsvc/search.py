"""The query path: candidates by meaning and by words -> fused, balanced, grouped, scored anew -> hits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.filters import check_fields, check_group, matching_mask
from embedsvc.collections.fusion import reciprocal_rank_fusion, score_fusion
from embedsvc.collections.lexical import match_expression
from embedsvc.collections.maxsim import TokenScorer
from embedsvc.collections.metadata import Term, terms_of
from embedsvc.collections.request import OTHERS, SearchRequest
from embedsvc.collections.segments import ALL, Candidates, Restriction, State
from embedsvc.collections.views import LANGUAGE, StoredPassage, View
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.languages import UNDECIDED, detect_language
from embedsvc.reranker import Reranker

_HYBRID_DEPTH = 100  # candidates of each kind that are fused at least
_LEXICAL_CHUNK = 256
_MAX_CANDIDATES = 20_000
_MAX_RANKINGS = 10_000  # of one request: a ranking takes about a millisecond
_KEPT_FREQUENCIES = 50_000
_UNTIMED = nullcontext()
_UNIT = 1e-6


@dataclass(frozen=True)
class Passage:
    """The part of a document that was found; ``start`` and ``stop`` count characters of its text."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True)
class Hit:
    """A document that was found; ``score`` is the cosine with the query unless the search says otherwise.

    ``passage`` is given for a document that was split, ``explanation`` when it was asked for.
    """

    id: str
    text: str
    language: str
    score: float
    metadata: dict[str, Any] | None
    passage: Passage | None = None
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True)
class SearchResult:
    """Hits, best first; where asked for, the documents per language that may be found, and the plan."""

    hits: list[Hit]
    facets: dict[str, int] | None = None
    plan: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A text, a unit vector (dim,) (zeros: no direction), or both."""

    text: str | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Scorers:
    """What scores candidates anew, where it is configured."""

    tokens: TokenScorer | None = None
    reranker: Reranker | None = None


@dataclass
class Trace:
    """What an explanation is made of, if it is ``wanted``."""

    wanted: bool
    plan: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)  # by document

    def note(self, name: str, documents: Iterable[int], scores: Iterable[float]) -> None:
        for rank, (document, score) in enumerate(zip(documents, scores, strict=True), 1):
            self.scores.setdefault(int(document), {}).setdefault(name, float(score))
            self.scores[int(document)].setdefault(f"{name}_rank", rank)

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Measure a block, if anybody is going to read it."""
        return self._timed(name) if self.wanted else _UNTIMED

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - begin) * 1000
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + spent


class Search:
    """One request against one moment of a collection."""

    def __init__(self, view: View, state: State, request: SearchRequest, scorers: Scorers) -> None:
        self._view = view
        self._state = state
        self._request = request
        self._scorers = scorers
        self._within = self._restriction()
        self._trace = Trace(request.explain)

    def run(self, queries: Sequence[Query]) -> list[SearchResult]:
        """Return a result for each query; raise InvalidInputError when that takes too many rankings."""
        request = self._request
        self._check_rankings(len(queries))
        facets = self._facets() if request.facets else None
        results = []
        if request.mode == "dense" and not (request.is_balanced or request.boosts or request.group_by):
            ranked = self._dense([query.vector for query in queries], request.depth, self._within)
            shared = self._trace
            for query, found in zip(queries, ranked, strict=True):
                self._trace = Trace(request.explain, dict(shared.plan), dict(shared.timings_ms))
                results.append(self._finished(query, found, facets))
            return results
        for query in queries:
            self._trace = Trace(request.explain)
            results.append(self._finished(query, self._grouped(query), facets))
        return results

    def _check_rankings(self, queries: int) -> None:
        """Each language of a balanced search is ranked on its own, and each preferred one once more."""
        request = self._request
        own = len(self._balanced_codes()) if request.is_balanced else 1 + len(request.boosts)
        if queries * own > _MAX_RANKINGS:
            raise InvalidInputError(
                f"{queries} queries with {own} rankings each, by language, are {queries * own}; the limit is "
                f"{_MAX_RANKINGS}: send fewer queries at once, or name fewer languages",
                param="balance" if request.is_balanced else "prefer_language",
            )

    def _restriction(self) -> Restriction:
        request = self._request
        if request.group_by is not None:
            check_group(request.group_by, self._view.field_names())
        if request.filter is None:
            return ALL if request.languages is None else Restriction(languages=request.languages)
        memo = self._state.memo
        mask = memo.matching.get(request.filter)
        if mask is None:
            check_fields(request.filter, self._view.field_names())
            mask = matching_mask(request.filter, self._view, self._view.last_row("documents"))
            memo.keep(memo.matching, request.filter, mask)
        return Restriction(mask, request.languages)

    def _facets(self) -> dict[str, int]:
        if self._within.documents is None:
            languages = self._languages()
            wanted = self._request.languages
            return {code: n for code, n in languages.items() if wanted is None or code in wanted}
        memo, key = self._state.memo, (self._request.filter, self._request.languages)
        counted = memo.facets.get(key)
        if counted is None:
            counted = self._view.languages_of(self._within.documents, self._request.languages)
            memo.keep(memo.facets, key, counted)
        return dict(counted)

    def _languages(self) -> dict[str, int]:
        """Return the number of documents per language, once per generation."""
        memo = self._state.memo
        if memo.languages is None:
            memo.languages = self._view.languages()
        return memo.languages

    def _passages(self, rows: Sequence[int]) -> list[StoredPassage]:
        return self._view.passages(rows)

    def _metadata_of(self, documents: Sequence[int]) -> dict[int, dict[str, Any] | None]:
        return self._view.metadata_of(documents)

    # Rankings: documents, best first, each once.

    def _dense(
        self, vectors: Sequence[NDArray[np.float32] | None], k: int, within: Restriction
    ) -> list[Candidates]:
        """Return for each query vector the ``k`` or fewer documents nearest in meaning."""
        if not vectors:
            return []
        given = [vector for vector in vectors if vector is not None]
        matrix = given[0][None] if len(given) == 1 else np.stack(given)
        with self._trace.timed("index"):
            found, plan = self._state.search(matrix, k, within, self._request.filter)
            ranked = [
                self._distinct(candidates, vector, k, within)
                for candidates, vector in zip(found, matrix, strict=True)
            ]
        if self._request.explain:
            self._trace.plan["index"] = asdict(plan)
        return ranked

    def _distinct(
        self, found: Candidates, vector: NDArray[np.float32], k: int, within: Restriction
    ) -> Candidates:
        """Return the best passage of each document; look deeper where documents have several passages."""
        if not vector.any():
            return found.take(slice(0, 0))
        asked = k
        while True:
            documents = found.documents.tolist()
            if len(set(documents)) == len(documents):
                return found
            first = np.unique(found.documents, return_index=True)[1]
            if len(first) >= k or len(found) < asked or asked >= _MAX_CANDIDATES:
                return found.take(np.sort(first)[:k])
            asked *= 2
            found = self._state.search(vector[None], asked, within, self._request.filter)[0][0]

    def _lexical(self, text: str, k: int, within: Restriction) -> Candidates:
        """Return the ``k`` or fewer documents that best share words with the text."""
        with self._trace.timed("words"):
            expression = match_expression(text, self._query_language(text), frequency=self._documents_with)
            if self._request.explain:
                self._trace.plan["words"] = expression
            matches = iter(()) if expression is None else self._view.lexical_matches(expression)
            documents: list[int] = []
            scores: list[float] = []
            languages: list[str] = []
            while len(documents) < k and (chunk := list(islice(matches, _LEXICAL_CHUNK))):
                codes = self._view.document_languages([row for row, _ in chunk])
                for row, score in chunk:
                    if _lets_through(within, row, codes[row]):
                        documents.append(row)
                        scores.append(score)
                        languages.append(codes[row])
        return Candidates(
            np.array(scores[:k], np.float32),
            np.full(len(documents[:k]), -1, np.int64),
            np.array(documents[:k], np.int64),
            np.array(languages[:k], LANGUAGE),
        )

    def _documents_with(self, term: str) -> int:
        """Return how many documents have a term, or had it lately: that is only to tell rare from common."""
        known = self._state.memo.frequencies
        found = known.get(term)
        if found is None:
            found = self._view.documents_with(term)
            self._state.memo.keep(known, term, found, _KEPT_FREQUENCIES)
        return found

    def _ranked(self, query: Query, k: int, within: Restriction) -> Candidates:
        """Return the best documents in the request's mode, before any preference: ``k``, of fused more."""
        request = self._request
        if request.mode == "dense":
            (found,) = self._dense([query.vector], k, within)
            return found
        words = self._lexical(query.text or "", max(k, _HYBRID_DEPTH), within)
        if request.mode == "lexical":
            return words.first(k)
        (meaning,) = self._dense([query.vector], max(k, _HYBRID_DEPTH), within)
        if request.explain:
            self._trace.note("dense", meaning.documents, meaning.scores)
            self._trace.note("lexical", words.documents, words.scores)
        return self._fused(meaning, words)

    def _fused(self, meaning: Candidates, words: Candidates) -> Candidates:
        fuse = reciprocal_rank_fusion if self._request.fusion == "rrf" else score_fusion
        documents, scores = fuse([(part.documents, part.scores) for part in (meaning, words)])
        both = _union([meaning, words])
        place = {document: place for place, document in enumerate(both.documents.tolist())}
        found = both.take(np.array([place[document] for document in documents.tolist()], np.int64))
        return Candidates(scores.astype(np.float32), found.rows, found.documents, found.languages)

    def _preferred(self, query: Query, k: int, within: Restriction) -> Candidates:
        """Return the ``k`` best after the preferred languages have been given their boost."""
        request = self._request
        found = self._ranked(query, k, within)
        if not request.boosts:
            return found.first(k)
        parts = [found]
        if request.mode != "hybrid":  # ranks of other pools do not compare
            for code in request.boosts:
                if within.languages is None or code in within.languages:
                    parts.append(self._ranked(query, k, Restriction(within.documents, frozenset([code]))))
        found = _sorted(_union(parts))
        if request.explain and request.mode != "hybrid":
            self._trace.note(request.mode, found.documents, found.scores)
        boost = np.array([request.boosts.get(code.decode(), 0.0) for code in found.languages], np.float32)
        raised = found.scores + boost if request.mode == "dense" else found.scores * (1 + boost)
        return _sorted(Candidates(raised, found.rows, found.documents, found.languages)).first(k)

    def _balanced(self, query: Query, k: int) -> Candidates:
        """Return the ``k`` best, as the request's balance between languages wants it."""
        request = self._request
        if not request.is_balanced:
            return self._preferred(query, k, self._within)
        parts = {}
        for code, most in self._balanced_codes().items():
            own = Restriction(self._within.documents, frozenset([code]))
            parts[code] = self._preferred(query, k if most is None else min(k, most), own)
        if not request.round_robin:
            return _sorted(_union(list(parts.values()))).first(k)
        return _in_turns([part for part in parts.values() if len(part)]).first(k)

    def _balanced_codes(self) -> dict[str, int | None]:
        """Return the languages that are ranked each on its own, sorted, and the most hits of each."""
        quotas = self._request.quotas
        wanted = self._request.languages
        codes = sorted(self._languages() if wanted is None else wanted)
        if quotas is None:
            return dict.fromkeys(codes)
        most = {code: quotas.get(code, quotas.get(OTHERS, 0)) for code in codes}
        return {code: quota for code, quota in most.items() if quota}

    def _grouped(self, query: Query) -> Candidates:
        """Return the best documents; with ``group_by``, one for each value of that field."""
        depth = asked = self._request.depth
        found = self._balanced(query, asked)
        if self._request.group_by is None:
            return found
        while True:
            kept = self._first_of_groups(found)
            if len(kept) >= depth or len(found) < asked or asked >= _MAX_CANDIDATES:
                return found.take(np.array(kept[:depth], np.int64))
            asked *= 2
            found = self._balanced(query, asked)

    def _first_of_groups(self, found: Candidates) -> list[int]:
        """Return the places of the first document of each group; one without the field is a group."""
        metadata = self._metadata_of(found.documents.tolist())
        seen: set[object] = set()
        kept = []
        for place, document in enumerate(found.documents.tolist()):
            key = _values_at(metadata[document], str(self._request.group_by)) or document
            if key not in seen:
                seen.add(key)
                kept.append(place)
        return kept

    # From candidates to hits.

    def _finished(self, query: Query, found: Candidates, facets: dict[str, int] | None) -> SearchResult:
        request = self._request
        found = self._scored_anew(query, found.first(request.depth))
        if request.min_score is not None:
            found = found.take(found.scores >= request.min_score)
        if request.offset or len(found) > request.top_k:
            found = found.take(slice(request.offset, request.reach))
        with self._trace.timed("documents"):
            found = self._with_passages(query, found)
            passages = self._passages(found.rows.tolist())
        hits = [
            self._hit(passage, document, score)
            for passage, document, score in zip(
                passages, found.documents.tolist(), found.scores.tolist(), strict=True
            )
        ]
        return SearchResult(hits, facets, self._plan() if request.explain else None)

    def _hit(self, found: StoredPassage, document: int, score: float) -> Hit:
        start, stop, text = found.start, found.stop, found.text
        whole = start == 0 and stop >= len(text)
        return Hit(
            found.id,
            text,
            found.language,
            score,
            None if found.metadata is None else json.loads(found.metadata),
            None if whole else Passage(start, stop, text[start:stop]),
            self._trace.scores.get(document, {}) if self._request.explain else None,
        )

    def _plan(self) -> dict[str, Any]:
        timings = {name: round(spent, 3) for name, spent in self._trace.timings_ms.items()}
        return self._trace.plan | {
            "mode": self._request.mode,
            "generation": self._state.generation,
            "passages_outside_the_index": self._state.delta.alive_count,
            "timings_ms": timings,
        }

    def _scored_anew(self, query: Query, found: Candidates) -> Candidates:
        request, scorers = self._request, self._scorers
        if request.explain and request.mode != "hybrid":
            self._trace.note(request.mode, found.documents, found.scores)
        if not len(found):
            return found
        if request.maxsim and scorers.tokens is not None:
            found = self._with_passages(query, found)
            with self._trace.timed("maxsim"):
                scores = scorers.tokens.scores(str(query.text), found.rows.tolist(), self._view)
            found = self._rescored("maxsim", found, scores)
        if request.rerank and scorers.reranker is not None:
            found = self._with_passages(query, found.first(request.rerank))
            with self._trace.timed("rerank"):
                stored = self._passages(found.rows.tolist())
                texts = [part.text[part.start : part.stop] for part in stored]
                scores = scorers.reranker.scores(str(query.text), texts)
            found = self._rescored("rerank", found, scores)
        return found

    def _rescored(self, name: str, found: Candidates, scores: NDArray[np.float32]) -> Candidates:
        found = _sorted(Candidates(scores, found.rows, found.documents, found.languages))
        if self._request.explain:
            self._trace.note(name, found.documents, found.scores)
        return found

    def _with_passages(self, query: Query, found: Candidates) -> Candidates:
        """Give every document that was found by its words only the passage that has most of them."""
        if found.rows.min(initial=0) >= 0:
            return found
        unknown = np.flatnonzero(found.rows < 0)
        rows = found.rows.copy()
        best = self._view.best_passages(found.documents[unknown].tolist(), query.text or "")
        rows[unknown] = [best[document] for document in found.documents[unknown].tolist()]
        return Candidates(found.scores, rows, found.documents, found.languages)

    def _query_language(self, text: str) -> str | None:
        return self._request.query_language or query_language(text)


def query_language(text: str) -> str | None:
    """Return the language of a query, None when it cannot be told."""
    code = detect_language(text)
    return None if code == UNDECIDED else code


def unit_vector(vector: NDArray[Any] | Iterable[float], dimension: int) -> NDArray[np.float32]:
    """Return a query vector (dim,) as float32 of length 1 (zeros stay zeros).

    Raises DimensionMismatchError for another length, InvalidInputError for values that are not finite.
    """
    if isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.shape == (dimension,):
        with np.errstate(over="ignore", invalid="ignore"):  # such a vector is looked at below
            length = float(vector @ vector)
        if abs(length - 1) < _UNIT:
            return vector
    try:
        given = np.asarray(vector, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the vector is no list of numbers: {error}", param="vector") from error
    if given.shape != (dimension,):
        raise DimensionMismatchError(
            f"the vector has shape {given.shape}; the collection has vectors of ({dimension},)",
            param="vector",
        )
    largest = np.abs(given).max()
    if not np.isfinite(largest):
        place = int(np.flatnonzero(~np.isfinite(given))[0])
        raise InvalidInputError(f"vector[{place}] is {given[place]}; finite numbers expected", param="vector")
    if largest == 0:
        return given.astype(np.float32)
    scaled = given / largest
    unit: NDArray[np.float32] = (scaled / np.linalg.norm(scaled)).astype(np.float32)
    return unit


def _lets_through(within: Restriction, row: int, language: str) -> bool:
    if within.languages is not None and language not in within.languages:
        return False
    return within.documents is None or bool(within.documents[row])


def _union(parts: Sequence[Candidates]) -> Candidates:
    """Return all candidates, each document once: the first time it comes."""
    if not parts:
        nothing = np.empty(0, np.int64)
        return Candidates(nothing.astype(np.float32), nothing, nothing, nothing.astype(LANGUAGE))
    both = Candidates(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.documents for part in parts]),
        np.concatenate([part.languages for part in parts]),
    )
    return both.take(np.sort(np.unique(both.documents, return_index=True)[1]))


def _sorted(found: Candidates) -> Candidates:
    return found.take(np.lexsort((found.documents, -found.scores)))


def _in_turns(parts: Sequence[Candidates]) -> Candidates:
    """Return the best of each part, best part first, then the second of each, and so on."""
    ranks = np.concatenate([np.arange(len(part)) for part in parts] or [np.empty(0, np.int64)])
    found = _union(parts)
    return found.take(np.lexsort((found.documents, -found.scores, ranks)))


def _values_at(metadata: dict[str, Any] | None, path: str) -> frozenset[Term]:
    """Return what metadata holds at a path; equal are values that a filter takes for equal."""
    return frozenset(term for term in terms_of(metadata) if term.field == path and term.kind != "z")
