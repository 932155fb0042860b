"""The files of XQuAD-R: questions, sentences, and which answers which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import iterate_lines
from indexing.language_bias import Judgements
from training.evaluation.files import find_folder


@dataclass(frozen=True)
class XquadR:
    """Questions by language, then key; sentences; judgements; ``keys`` ``(q,)`` say which ask the same."""

    questions: list[str]
    passages: list[str]
    judged: Judgements
    keys: NDArray[np.str_]


def read_xquad_r(data: Path) -> XquadR:
    """Read ``queries.jsonl``, ``corpus.jsonl`` and ``qrels.tsv`` in ``data/xquadr`` or ``data``.

    Raises NotFoundError for a missing file, InvalidInputError for a line that lacks a field or names an
    unknown id, and for empty files.
    """
    folder = find_folder("xquad-r", (data / "xquadr", data), "qrels.tsv")
    questions = list(_records(folder / "queries.jsonl", ("qid", "key", "lang", "text")))
    passages = list(_records(folder / "corpus.jsonl", ("sid", "lang", "text")))
    questions.sort(key=lambda question: (question["lang"], question["key"]))
    answers = _answers(folder / "qrels.tsv", questions, passages)
    judged = Judgements(
        answers,
        np.array([question["lang"] for question in questions]),
        np.array([passage["lang"] for passage in passages]),
    )
    return XquadR(
        [question["text"] for question in questions],
        [passage["text"] for passage in passages],
        judged,
        np.array([question["key"] for question in questions]),
    )


def _answers(
    path: Path, questions: list[dict[str, str]], passages: list[dict[str, str]]
) -> list[NDArray[np.int64]]:
    row = {passage["sid"]: number for number, passage in enumerate(passages)}
    answers: dict[str, list[int]] = {question["qid"]: [] for question in questions}
    for number, line in iterate_lines(path):
        fields = line.split("\t")
        if number == 1 and fields[:1] == ["qid"]:
            continue
        if len(fields) != 3 or fields[0] not in answers or fields[1] not in row:
            raise InvalidInputError(
                f"{path} line {number}: expected qid, sid, rel of known questions and sentences"
            )
        if float(fields[2]) > 0:
            answers[fields[0]].append(row[fields[1]])
    for question, found in answers.items():
        if not found:
            raise InvalidInputError(f"{path} has no answer for question {question!r}")
    return [np.array(found, np.int64) for found in answers.values()]


def _records(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    empty = True
    for number, line in iterate_lines(path):
        try:
            record = json.loads(line)
            yield {name: str(record[name]) for name in names}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path} line {number}: expected an object with {', '.join(names)}"
            ) from error
        empty = False
    if empty:
        raise InvalidInputError(f"{path} is empty")
