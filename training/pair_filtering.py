"""Which pairs are not learnt from, why, and how many: the filters of mining, blank sides, duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedsvc.errors import InvalidInputError
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.filters import PAIR_FILTERS, SENTENCE_FILTERS, SentenceFilters
from embedsvc.mining.ingest_options import IngestOptions, checked_options
from embedsvc.mining.ingest_report import EXAMPLES
from embedsvc.mining.pair_filters import RATIO_PAIRS, factor_of, log_ratio, pair_reason
from embedsvc.mining.sentence_keys import ABSENT, Keys, KeyTable, sentence_keys
from training.data import folded_texts
from training.data_config import DUPLICATE, EMPTY, NEAR_DUPLICATE, DataConfig
from training.pair_readers import TextPair

Languages = tuple[str, str]
Reasons = list[str | None]
_EXAMPLE_CHARACTERS = 80


def length_factors(batches: Iterable[Sequence[TextPair]]) -> dict[Languages, float | None]:
    """Return how long targets are beside their sources, by the two languages (`length_factor`)."""
    ratios: defaultdict[Languages, list[float]] = defaultdict(list)
    for batch in batches:
        for pair in batch:
            known = ratios[pair.source_language, pair.target_language]
            if len(known) < RATIO_PAIRS and pair.source.strip() and pair.target.strip():
                known.append(log_ratio(duplicate_key(pair.source), duplicate_key(pair.target)))
    return {languages: factor_of(known) for languages, known in ratios.items()}


class PairFilter:
    """Says of each pair why it is dropped, if it is; ``counts`` and ``examples`` by reason."""

    def __init__(self, config: DataConfig, factors: Mapping[Languages, float | None]) -> None:
        self._config = config
        self._factors = factors
        self._sentences: dict[str, SentenceFilters] = {}
        self._notes: list[str] = []
        steps: dict[str, Callable[[Sequence[TextPair]], Reasons]] = {
            EMPTY: lambda pairs: [EMPTY if _is_blank(pair) else None for pair in pairs],
            "sentences": self._of_sentences,
            "pairs": self._of_pairs,
            DUPLICATE: _Seen(DUPLICATE, lambda texts: map(duplicate_key, texts)).reasons,
            NEAR_DUPLICATE: _Seen(NEAR_DUPLICATE, folded_texts).reasons,
        }
        chosen = set(config.filters)
        chosen |= {"sentences"} if chosen & set(SENTENCE_FILTERS) else set()
        chosen |= {"pairs"} if chosen & set(PAIR_FILTERS) else set()
        self._steps = [step for name, step in steps.items() if name in chosen]
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def kept(self, place: str, pairs: Sequence[TextPair]) -> Sequence[TextPair]:
        """Return the pairs that are kept; ``place`` with a pair's number says where it is: "a.tsv line".

        Raises InvalidInputError for a blank side, unless the filter "empty" drops it.
        """
        if EMPTY not in self._config.filters:
            _refuse_blank(place, pairs)
        for step in self._steps:
            if pairs:
                pairs = self._passing(place, pairs, step(pairs))
        return pairs

    def _passing(self, place: str, pairs: Sequence[TextPair], reasons: Reasons) -> list[TextPair]:
        kept = []
        for pair, reason in zip(pairs, reasons, strict=True):
            if reason is None:
                kept.append(pair)
                continue
            self.counts[reason] += 1
            shown = self.examples.setdefault(reason, [])
            if len(shown) < EXAMPLES:
                cut = {
                    "source": pair.source[:_EXAMPLE_CHARACTERS],
                    "target": pair.target[:_EXAMPLE_CHARACTERS],
                }
                shown.append({"place": f"{place} {pair.line}", **cut})
        return kept

    def _of_sentences(self, pairs: Sequence[TextPair]) -> Reasons:
        texts: defaultdict[str, dict[str, str | None]] = defaultdict(dict)  # by language, each text once
        for pair in pairs:
            texts[pair.source_language][duplicate_key(pair.source)] = None
            texts[pair.target_language][duplicate_key(pair.target)] = None
        for language, distinct in texts.items():
            found = self._filters_of(language).reasons([*distinct])
            texts[language] = dict(zip(distinct, found, strict=True))
        return [
            texts[pair.source_language][duplicate_key(pair.source)]
            or texts[pair.target_language][duplicate_key(pair.target)]
            for pair in pairs
        ]

    def _filters_of(self, language: str) -> SentenceFilters:
        if language not in self._sentences:
            config = self._config
            names = tuple(name for name in config.filters if name in SENTENCE_FILTERS)
            options = IngestOptions(
                filters=names, min_characters=config.min_characters, max_characters=config.max_characters
            )
            self._sentences[language] = filters = SentenceFilters(_in_language(options, language))
            self._notes += [f"{language}: {note}" for note in filters.notes]
        return self._sentences[language]

    def _of_pairs(self, pairs: Sequence[TextPair]) -> Reasons:
        return [
            pair_reason(
                duplicate_key(pair.source),
                duplicate_key(pair.target),
                self._config.filters,
                length_factor=self._factors.get((pair.source_language, pair.target_language)),
            )
            for pair in pairs
        ]

    def report(self) -> dict[str, Any]:
        """Return which filters dropped how many pairs, the first examples, and what could not be checked."""
        names = [name for name in self._config.filters if self.counts[name]]
        return {
            "dropped": {name: self.counts[name] for name in names},
            "examples": {name: self.examples[name] for name in names},
            "notes": self._notes,
        }


def _in_language(options: IngestOptions, language: str) -> IngestOptions:
    """The options with a language, where it is one that is known."""
    try:
        return checked_options(replace(options, language=language))
    except InvalidInputError:
        return checked_options(options)


def _is_blank(pair: TextPair) -> bool:
    return not pair.source or not pair.target or pair.source.isspace() or pair.target.isspace()


def _refuse_blank(place: str, pairs: Sequence[TextPair]) -> None:
    if blank := next(filter(_is_blank, pairs), None):
        side, other = ("target", blank.source) if blank.source.strip() else ("source", blank.target)
        raise InvalidInputError(
            f"{place} {blank.line}: the {side} is empty beside {other[:80]!r}; the filter "
            f'"{EMPTY}" in data.filters would leave such pairs out and count them'
        )


class _Seen:
    """Drops what was there before: pairs whose texts have the same normal form, in the same languages."""

    def __init__(self, reason: str, normal: Callable[[Iterable[str]], Iterable[str]]) -> None:
        self._reason, self._normal = reason, normal
        self._table = KeyTable()

    def reasons(self, pairs: Sequence[TextPair]) -> Reasons:
        keys = self._keys(pairs)
        distinct, first = np.unique(keys, return_index=True)
        new = self._table.find(distinct) == ABSENT
        self._table.add(distinct[new], first[new].astype(np.int64))
        is_new = np.zeros(len(pairs), bool)
        is_new[first[new]] = True
        return [None if one else self._reason for one in is_new]

    def _keys(self, pairs: Sequence[TextPair]) -> Keys:
        sources = self._normal(pair.source for pair in pairs)
        targets = self._normal(pair.target for pair in pairs)
        return sentence_keys(
            "\0".join(
                (source or pair.source, target or pair.target, pair.source_language, pair.target_language)
            ).encode()
            for source, target, pair in zip(sources, targets, pairs, strict=True)
        )
