"""Retrieval from a pool of 11 languages (XQuAD-R), and what each way of debiasing changes, as Markdown.

    python benchmarks/xquadr.py --data DIR [--model NAME] [--tune]

DIR holds xquadr/ and flores/text/, whose lines serve as the parallel pairs of "shift". Means and directions
are learnt from the passages alone. All figures are of the half of the questions that no parameter was
chosen on; with --tune, of the other half, with several parameters.

mAP pooled: all 13,014 sentences are ranked and the answers in all 11 languages must come first. Mean per
language: as if the pool had one language, averaged over the 11. LPR: how often the first right answer is
in the question's language (chance: 0.091). Own share: of the first 20, right or wrong (relevant: 0.091).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from retrieval.bias import Bias, Vectors, dense, languages, measure, summary
from retrieval.xquad_r import FLORES, XquadR, read_xquad_r

from embedsvc import Encoder, load_encoder
from embedsvc.languages import UNDECIDED, detect_language
from embedsvc.textfiles import read_texts
from indexing.debias import Debias, ParallelPairs, fit_debias

PIVOT = "en"


def encoded(encoder: Encoder, data: XquadR) -> tuple[Vectors, Vectors]:
    """Return the vectors of questions and passages."""
    return (
        encoder.encode(data.questions, input_type="query", truncate="end"),
        encoder.encode(data.passages, input_type="document", truncate="end"),
    )


def parallel_pairs(encoder: Encoder, data: Path) -> ParallelPairs:
    """Return the lines of FLORES in all languages of XQuAD-R beside the English ones."""
    lines = {
        language: encoder.encode(read_texts(data / "flores" / "text" / f"{name}.txt"), truncate="end")
        for language, name in FLORES.items()
    }
    pivot = lines.pop(PIVOT)
    return ParallelPairs(
        np.concatenate(list(lines.values())),
        np.repeat(list(lines), len(pivot)),
        np.concatenate([pivot] * len(lines)),
        PIVOT,
    )


def methods(passages: Vectors, groups: NDArray[np.str_], pairs: ParallelPairs) -> dict[str, Debias]:
    """Return the three methods as they are by default."""
    return {
        "center": fit_debias("center", passages, groups),
        "lir": fit_debias("lir", passages, groups),
        "shift": fit_debias("shift", passages, groups, pairs=pairs),
    }


def measured(
    debias: Debias,
    vectors: tuple[Vectors, Vectors],
    data: XquadR,
    asked: NDArray[np.str_],
    half: NDArray[np.int64],
) -> Bias:
    """Return the figures when the questions are taken for texts in the languages ``asked`` ``(q,)``."""
    questions, passages = vectors
    rank = dense(debias.apply_to_queries(questions, asked), debias.apply(passages, data.judged.row_languages))
    return measure(rank, data.judged, half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with xquadr/ and flores/text/")
    parser.add_argument("--model", help="model folder or hub id (default: the bundled model)")
    parser.add_argument("--tune", action="store_true", help="compare parameters, on the half kept for that")
    options = parser.parse_args()
    encoder, data = load_encoder(options.model), read_xquad_r(options.data)
    vectors, pairs = encoded(encoder, data), parallel_pairs(encoder, options.data)
    groups, asked = data.judged.row_languages, data.judged.query_languages
    half = np.flatnonzero(data.tuning == options.tune)
    fitted = methods(vectors[1], groups, pairs)
    if options.tune:
        for r in (2, 3, 5, 8):
            fitted[f"lir, {r} directions"] = fit_debias("lir", vectors[1], groups, components=r)
    modes = {"none": measure(dense(*vectors), data.judged, half)}
    modes |= {name: measured(debias, vectors, data, asked, half) for name, debias in fitted.items()}
    print(f"{encoder.name}: {len(half):,} questions, {len(data.passages):,} passages, 11 languages\n")
    print(summary(modes))
    if options.tune:
        return
    print(f"\n{languages(modes)}\n\nThe language of the questions detected, or not known at all:\n")
    print(unsure(fitted, vectors, data, half))


def unsure(
    fitted: dict[str, Debias], vectors: tuple[Vectors, Vectors], data: XquadR, half: NDArray[np.int64]
) -> str:
    """Return the figures of the methods that treat a question by its language, when that may be wrong."""
    detected = np.array([detect_language(question) for question in data.questions])
    right = (detected == data.judged.query_languages)[half].mean()
    modes = {}
    for name in ("center", "lir"):
        labels = {f"detected, {right:.1%} right": detected, "not known": np.full(len(detected), UNDECIDED)}
        for how, asked in labels.items():
            modes[f"{name}, {how}"] = measured(fitted[name], vectors, data, asked, half)
    return summary(modes)


if __name__ == "__main__":
    main()
