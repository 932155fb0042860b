"""What a search means, slowly: documents in a dict, each answer computed from all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.collection import Collection
from embedsvc.collections.lexical import analyze
from embedsvc.collections.passages import PassageSplitter
from embedsvc.encoder import Encoder
from embedsvc.search import Hit

Vector = NDArray[np.float32]
CODES = {"en": 0.55, "de": 0.25, "sw": 0.12, "yo": 0.06, "ca": 0.02}


@dataclass
class Known:
    """A document as the oracle keeps it: ``place`` is its order of insertion, vectors one per passage."""

    place: int
    text: str
    language: str
    metadata: Mapping[str, Any] | None
    spans: list[tuple[int, int]]
    vectors: list[Vector | None]


@dataclass
class Oracle:
    """Holds the documents of a collection and answers any search of it."""

    encoder: Encoder | None = None
    chunk_tokens: int | None = None
    chunk_overlap: int = 32
    known: dict[str, Known] = field(default_factory=dict)
    moved: Callable[[Vector, str], Vector] | None = None  # debiasing of a vector of a language
    _places: int = 0

    def upsert(self, documents: Iterable[Mapping[str, Any]]) -> None:
        for given in documents:
            spans, vectors = self._passages(given)
            self._places += 1
            self.known[given["id"]] = Known(
                self._places, given["text"], given["language"], given.get("metadata"), spans, vectors
            )

    def delete(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self.known.pop(id_, None)

    def _passages(self, given: Mapping[str, Any]) -> tuple[list[tuple[int, int]], list[Vector | None]]:
        text = given["text"]
        if given.get("vector") is not None:
            own = np.asarray(given["vector"], np.float64)
            return [(0, len(text))], [stored((own / np.linalg.norm(own)).astype(np.float32))]
        assert self.encoder is not None
        spans = [(0, len(text))]
        if self.chunk_tokens is not None:
            splitter = PassageSplitter(self.encoder, self.chunk_tokens, self.chunk_overlap)
            spans = [(span.start, span.stop) for span in splitter.split([text], [given["language"]])[0]]
        encoded = self.encoder.encode([text[start:stop] for start, stop in spans])
        return spans, [stored(vector) for vector in encoded]

    def found(self, query: str | None = None, vector: Vector | None = None, **options: Any) -> list[Found]:
        """The whole ranking that a search cuts its page from."""
        depth = options.get("offset", 0) + options.get("top_k", 10)
        allowed = {
            id_: known
            for id_, known in self.known.items()
            if options.get("languages") is None or known.language in options["languages"]
            if options.get("filter") is None or holds(options["filter"], known.metadata)
        }
        if vector is None and query is not None and self.encoder is not None:
            vector = self.encoder.encode([query])[0]

        def ranked(pool: dict[str, Known]) -> list[Found]:
            return self._boosted(self._ranked(query or "", vector, pool, depth, options), options)

        balance = options.get("balance", "none")
        if balance == "none":
            ranking = ranked(allowed)
        else:
            codes = {known.language for known in allowed.values()}
            parts = {
                code: ranked({i: known for i, known in allowed.items() if known.language == code})
                for code in codes
            }
            ranking = self._balanced(parts, balance)
        if options.get("group_by") is not None:
            ranking = self._grouped(ranking, options["group_by"])
        least = options.get("min_score")
        return [one for one in ranking if least is None or np.float32(one.score) >= least]

    def page(self, query: str | None = None, vector: Vector | None = None, **options: Any) -> list[Found]:
        first = options.get("offset", 0)
        return self.found(query, vector, **options)[first : first + options.get("top_k", 10)]

    def _ranked(
        self,
        query: str,
        vector: Vector | None,
        pool: dict[str, Known],
        depth: int,
        options: Mapping[str, Any],
    ) -> list[Found]:
        mode = options.get("mode", "dense")
        if mode == "dense":
            return self._dense(vector, pool)
        words = self._words(query, pool, options.get("query_language"))
        if mode == "lexical":
            return words
        cut = max(depth, 100)
        return self._fused([self._dense(vector, pool)[:cut], words[:cut]], options.get("fusion", "rrf"))

    def _dense(self, vector: Vector | None, pool: dict[str, Known]) -> list[Found]:
        if vector is None or not vector.any():
            return []
        places = [
            (id_, place)
            for id_, known in pool.items()
            for place, own in enumerate(known.vectors)
            if own is not None
        ]
        turned = [self._turned(pool[id_].vectors[place], pool[id_].language) for id_, place in places]
        best: dict[str, Found] = {}
        for (id_, place), score in zip(
            places, (np.array(turned) @ vector).tolist() if turned else [], strict=True
        ):
            if id_ not in best or score > best[id_].score:
                best[id_] = Found(id_, score, pool[id_], pool[id_].spans[place])
        return best_first(list(best.values()))

    def _turned(self, vector: Vector | None, language: str) -> Vector:
        assert vector is not None
        return vector if self.moved is None else self.moved(vector, language)

    def _words(self, query: str, pool: dict[str, Known], language: str | None) -> list[Found]:
        """Okapi BM25 (k1 = 1.2, b = 0.75), statistics over all documents."""
        texts = {
            id_: Counter(analyze(known.text, known.language).split()) for id_, known in self.known.items()
        }
        mean = sum(text.total() for text in texts.values()) / max(1, len(texts))
        scores: Counter[str] = Counter()
        for term in dict.fromkeys(analyze(query, language).split()):
            having = [id_ for id_, text in texts.items() if term in text]
            weight = math.log((len(texts) - len(having) + 0.5) / (len(having) + 0.5)) if having else 0
            for id_ in having:
                often = texts[id_][term]
                size = 1.2 * (0.25 + 0.75 * texts[id_].total() / mean)
                scores[id_] += max(weight, 1e-6) * often * 2.2 / (often + size)
        return best_first([Found(id_, scores[id_], self.known[id_]) for id_ in scores if id_ in pool])

    @staticmethod
    def _fused(rankings: Sequence[list[Found]], fusion: str) -> list[Found]:
        scores: Counter[str] = Counter()
        for ranking in rankings:
            low, high = (ranking[-1].score, ranking[0].score) if ranking else (0.0, 0.0)
            for rank, one in enumerate(ranking, 1):
                if fusion == "rrf":
                    scores[one.id] += 1 / (60 + rank)
                else:
                    scores[one.id] += (one.score - low) / (high - low) / 2 if high > low else 0.5
        known = {one.id: one.known for ranking in rankings for one in ranking}
        return best_first([Found(id_, score, known[id_]) for id_, score in scores.items()])

    @staticmethod
    def _boosted(ranking: list[Found], options: Mapping[str, Any]) -> list[Found]:
        boosts = options.get("prefer_language") or {}
        boosts = {boosts: 0.05} if isinstance(boosts, str) else boosts
        raised = []
        for one in ranking:
            boost = boosts.get(one.known.language, 0)
            score = one.score + boost if options.get("mode", "dense") == "dense" else one.score * (1 + boost)
            raised.append(Found(one.id, score, one.known, one.span))
        return best_first(raised)

    @staticmethod
    def _balanced(parts: dict[str, list[Found]], balance: str | Mapping[str, int]) -> list[Found]:
        if balance == "round_robin":
            rounds: list[Found] = []
            for turn in range(max(map(len, parts.values()), default=0)):
                rounds += best_first([part[turn] for part in parts.values() if turn < len(part)])
            return rounds
        assert isinstance(balance, Mapping)
        return best_first(
            [one for code, part in parts.items() for one in part[: balance.get(code, balance.get("*", 0))]]
        )

    @staticmethod
    def _grouped(ranking: list[Found], name: str) -> list[Found]:
        kept, seen = [], set()
        for one in ranking:
            values = frozenset(
                (kind_of(value), value) for value in values_at(one.known.metadata, name) if value is not None
            )
            if not values or values not in seen:
                kept.append(one)
            seen.add(values)
        return kept


@dataclass(frozen=True)
class Found:
    """A document with its score, and the span of its best passage where the search is by meaning."""

    id: str
    score: float
    known: Known
    span: tuple[int, int] | None = None


def best_first(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda one: (-one.score, one.known.place))


def stored(vector: Vector) -> Vector | None:
    """A unit vector as the database keeps it; none for zeros."""
    if not vector.any():
        return None
    kept = vector.astype(np.float16).astype(np.float32)
    unit: Vector = kept / np.linalg.norm(kept)
    return unit


def scalars(value: Any, path: str | None = None) -> Iterator[tuple[str, Any]]:
    """Every scalar in metadata with its dotted path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from scalars(inner, key if path is None else f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner, path)
    elif path is not None:
        yield path, value


def values_at(metadata: Mapping[str, Any] | None, name: str) -> list[Any]:
    return [value for path, value in scalars(metadata or {}) if path == name]


def kind_of(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else "string"


def same(value: Any, wanted: Any) -> bool:
    """Equal as JSON values of one kind; numbers too large for a float to hold exactly are rounded to it."""
    if kind_of(value) != kind_of(wanted):
        return False
    if kind_of(value) == "number" and max(abs(value), abs(wanted)) > 2**53:
        return float(value) == float(wanted)
    return bool(value == wanted)


def holds(wanted: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> bool:
    """Whether a filter holds, by recursion over it."""
    for name, value in wanted.items():
        if name == "$and":
            true = all(holds(part, metadata) for part in value)
        elif name == "$or":
            true = any(holds(part, metadata) for part in value)
        elif name == "$not":
            true = not holds(value, metadata)
        elif isinstance(value, Mapping):
            true = _compared(value, values_at(metadata, name))
        else:
            any_of = value if isinstance(value, list) else [value]
            true = any(same(one, entry) for one in values_at(metadata, name) for entry in any_of)
        if not true:
            return False
    return True


def _compared(operators: Mapping[str, Any], values: list[Any]) -> bool:
    ranges = {name: bound for name, bound in operators.items() if name in ("$gt", "$gte", "$lt", "$lte")}
    for name, bound in operators.items():
        if name in ("$eq", "$ne"):
            true = any(same(value, bound) for value in values) == (name == "$eq")
        elif name in ("$in", "$nin"):
            true = any(same(value, entry) for value in values for entry in bound) == (name == "$in")
        elif name == "$exists":
            true = bool(values) == bound
        else:
            true = True
        if not true:
            return False
    return not ranges or any(all(_within(value, name, ranges[name]) for name in ranges) for value in values)


def _within(value: Any, name: str, bound: Any) -> bool:
    if kind_of(value) != kind_of(bound):
        return False
    compared = {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}
    return bool(compared[name])


# Documents and comparisons.


def random_metadata(rng: np.random.Generator) -> dict[str, Any] | None:
    """Metadata of every shape; some fields are often missing."""
    if rng.random() < 0.1:
        return None
    found: dict[str, Any] = {
        "year": int(rng.integers(2015, 2026)),
        "source": str(rng.choice(["web", "book", "faq"])),
    }
    if rng.random() < 0.5:
        found["tags"] = [str(tag) for tag in rng.choice(["old", "new", "draft", "ü"], rng.integers(0, 3))]
    if rng.random() < 0.4:
        found["author"] = {"name": str(rng.choice(["Ada", "Grace"])), "age": float(rng.integers(20, 24))}
    if rng.random() < 0.3:
        found["checked"] = [True, False, None, 1, "1", 0][rng.integers(0, 6)]
    return found


def corpus(count: int, seed: int = 0, first: int = 0) -> list[dict[str, Any]]:
    """Documents of 2 to 12 words of the tiny model, of languages of uneven size, with metadata."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(list(CODES), count, p=list(CODES.values()))
    return [
        {
            "id": f"d{first + number}",
            "text": " ".join(f"w{word}" for word in rng.integers(0, 300, rng.integers(2, 13))),
            "language": str(code),
            "metadata": random_metadata(rng),
        }
        for number, code in enumerate(codes)
    ]


QUERIES = ["w1 w2", "w7", "w100 w200 w3 w4 w5 w6"]


def assert_same(hits: Sequence[Hit], wanted: Sequence[Found], within: float = 2e-5) -> None:
    """The same documents in the same order, with the same scores and what was stored about them."""
    assert [(hit.id, hit.language) for hit in hits] == [(one.id, one.known.language) for one in wanted]
    for hit, one in zip(hits, wanted, strict=True):
        assert abs(hit.score - one.score) <= within * max(1, abs(one.score)), (hit, one)
        assert (hit.text, hit.metadata) == (one.known.text, one.known.metadata)
        if hit.passage is not None:
            assert hit.text[hit.passage.start : hit.passage.stop] == hit.passage.text
            assert one.span is None or one.span == (hit.passage.start, hit.passage.stop)


def check(collection: Collection, oracle: Oracle, **options: Any) -> None:
    """Every query finds in the collection what it finds in the oracle."""
    for query in QUERIES:
        assert_same(collection.search(query, **options), oracle.page(query, **options))
