"""Searches of a collection by meaning, by words, and by both, on XQuAD-R in 11 languages, as Markdown.

    python benchmarks/hybrid.py --data DIR [--model NAME] [--every 4]

DIR holds xquadr/. Every fourth question of the half that no parameter was chosen on is asked, through
`Collection.query`, for 1,000 hits. Pooled: all 13,014 sentences in one collection, and the answers in all
11 languages count; own: the same collection searched with ``languages`` = that of the question.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from retrieval.bias import Rank, measure
from retrieval.xquad_r import XquadR, read_xquad_r
from serve.report import table

from embedsvc import Collection, load_encoder
from embedsvc.collections.collection import Document, SearchOptions
from indexing.language_bias import average_precision_by_language

_HITS = 1_000
_BATCH = 1_000
MODES = {
    "dense": SearchOptions(top_k=_HITS),
    "lexical": SearchOptions(top_k=_HITS, mode="lexical"),
    "hybrid, rrf": SearchOptions(top_k=_HITS, mode="hybrid"),
    "hybrid, score": SearchOptions(top_k=_HITS, mode="hybrid", fusion="score"),
    "dense, in turns": SearchOptions(top_k=_HITS, balance="round_robin"),
}


def filled(collection: Collection, data: XquadR) -> None:
    """Write all passages into a collection, their rows as ids."""
    documents = [
        Document(str(row), text, str(language))
        for row, (text, language) in enumerate(zip(data.passages, data.judged.row_languages, strict=True))
    ]
    for begin in range(0, len(documents), _BATCH):
        collection.upsert(documents[begin : begin + _BATCH])
    collection.build_index()


def searching(collection: Collection, data: XquadR, options: SearchOptions) -> Rank:
    """Return the ranking that a search gives."""

    def rank(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        results = collection.query([data.questions[number] for number in numbers], options=options)
        rows = np.full((len(numbers), _HITS), -1, np.int64)
        for place, result in enumerate(results):
            rows[place, : len(result.hits)] = [int(hit.id) for hit in result.hits]
        return rows

    return rank


def own_language(
    collection: Collection, data: XquadR, options: SearchOptions, asked: NDArray[np.int64]
) -> dict[str, float]:
    """Return the mAP of the questions in each language among the passages in it."""
    scores = {}
    for language in np.unique(data.judged.query_languages).tolist():
        numbers = asked[data.judged.query_languages[asked] == language]
        within = SearchOptions(**(vars(options) | {"languages": [language], "balance": "none"}))
        ranked = searching(collection, data, within)(numbers)
        by_language = average_precision_by_language(ranked, data.judged.take(numbers))
        scores[language] = float(np.nanmean(by_language[language]))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with xquadr/")
    parser.add_argument("--model", help="model folder or hub id (default: the bundled model)")
    parser.add_argument("--every", type=int, default=4, help="ask every so many-th question (default: 4)")
    options = parser.parse_args()
    encoder, data = load_encoder(options.model), read_xquad_r(options.data)
    asked = np.flatnonzero(~data.tuning)[:: options.every]
    columns: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder, Collection(Path(folder) / "xquadr", encoder) as collection:
        filled(collection, data)
        for mode, search in MODES.items():
            columns[mode] = column(collection, data, search, asked)
    print(f"{encoder.name}: {len(asked):,} questions, {len(data.passages):,} passages; mAP pooled / own\n")
    rows = [[name, *(cells[name] for cells in columns.values())] for name in next(iter(columns.values()))]
    print(table(["", *columns], rows))


def column(
    collection: Collection, data: XquadR, search: SearchOptions, asked: NDArray[np.int64]
) -> dict[str, str]:
    """Return "pooled / own" of a mode for each language of the questions, and the means."""
    bias = measure(searching(collection, data, search), data.judged, asked)
    own = own_language(collection, data, search, asked)
    pooled = {language: float(bias.figures["pooled"][bias.queries == language].mean()) for language in own}
    cells = {language: f"{pooled[language]:.3f} / {own[language]:.3f}" for language in own}
    return cells | {"mean": f"{np.mean(list(pooled.values())):.3f} / {np.mean(list(own.values())):.3f}"}


if __name__ == "__main__":
    main()
