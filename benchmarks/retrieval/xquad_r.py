"""XQuAD-R of LAReQA (arXiv 2004.05484): questions and sentences in 11 languages, each answered in all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.language_bias import Judgements

_SEED = 0
FLORES = {
    "ar": "arb_Arab",
    "de": "deu_Latn",
    "el": "ell_Grek",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "hi": "hin_Deva",
    "ru": "rus_Cyrl",
    "th": "tha_Thai",
    "tr": "tur_Latn",
    "vi": "vie_Latn",
    "zh": "zho_Hans",
}
"""The languages of XQuAD-R, and where FLORES has sentences in them."""


@dataclass(frozen=True)
class XquadR:
    """Questions, passages with their ids, which answers which, and which questions serve for choosing.

    ``tuning`` ``(q,)`` marks half of the questions, each in all its languages: parameters are chosen on
    them, and what is reported is measured on the others.
    """

    questions: list[str]
    passages: list[str]
    passage_ids: list[str]
    judged: Judgements
    tuning: NDArray[np.bool_]


def read_xquad_r(data: Path) -> XquadR:
    """Read ``xquadr/`` in ``data``: queries.jsonl, corpus.jsonl and qrels.tsv."""
    questions = list(_records(data / "xquadr" / "queries.jsonl"))
    passages = list(_records(data / "xquadr" / "corpus.jsonl"))
    row = {passage["sid"]: number for number, passage in enumerate(passages)}
    answers: dict[str, list[int]] = {question["qid"]: [] for question in questions}
    lines = (data / "xquadr" / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    for line in lines[1:]:
        question, passage, _ = line.split("\t")
        answers[question].append(row[passage])
    judged = Judgements(
        [np.array(rows) for rows in answers.values()],
        np.array([question["lang"] for question in questions]),
        np.array([passage["lang"] for passage in passages]),
    )
    return XquadR(
        [question["text"] for question in questions],
        [passage["text"] for passage in passages],
        list(row),
        judged,
        _half([question["key"] for question in questions]),
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _half(keys: list[str]) -> NDArray[np.bool_]:
    distinct = np.unique(keys)
    chosen = np.random.default_rng(_SEED).permutation(distinct)[: len(distinct) // 2]
    return np.isin(keys, chosen)
