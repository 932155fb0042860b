"""BUCC-like mining sets: translated news lines hidden among sentences that have no partner.

Made from NTREX-128, FLORES-200, Tatoeba, MKQA, XQuAD-R and (one side of) the training pairs. Of
every aligned source a line goes to both sides (gold), to the development pairs, or to one side only.
"""

from __future__ import annotations

import csv
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.duplicates import duplicate_key
from embedsvc.textfiles import read_texts

# NTREX code: codes in FLORES (and the training pairs), Tatoeba and XQuAD-R.
LANGUAGES: dict[str, tuple[str, str, str | None]] = {
    "deu": ("deu_Latn", "deu", "de"),
    "fra": ("fra_Latn", "fra", None),
    "rus": ("rus_Cyrl", "rus", "ru"),
    "spa": ("spa_Latn", "spa", "es"),
    "zho-CN": ("zho_Hans", "cmn", "zh"),
    "arb": ("arb_Arab", "ara", "ar"),
    "hin": ("hin_Deva", "hin", "hi"),
    "tur": ("tur_Latn", "tur", "tr"),
    "swa": ("swh_Latn", "swh", None),
    "jpn": ("jpn_Jpan", "jpn", None),
}
FILLER = 3_500  # sentences of the training pairs (source) and questions of MKQA (English)
_LONG = 30  # characters that filler of the source side has at least: no bare interface labels

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class BuccLike:
    """Two sides without duplicates, shuffled; ``gold`` ``(pairs, 2)`` rows; ``dev`` pairs of other lines."""

    language: str
    source: list[str]
    target: list[str]
    gold: NDArray[np.int64]
    dev: Pairs


def make_set(data: Path, language: str, *, gold: int = 700, dev: int = 500, seed: int = 0) -> BuccLike:
    """Return the set of a language against English; 1,997 - gold - dev news lines stand on one side only."""
    shuffle = random.Random(f"{language} {seed}")
    news = _distinct(ntrex(data, language))
    shuffle.shuffle(news)
    hidden, known, rest = news[:gold], news[gold : gold + dev], news[gold + dev :]
    rest += distractors(data, language)
    source = [a for row, (a, _) in enumerate(rest) if row % 2 == 0] + filler(data, language)
    target = [b for row, (_, b) in enumerate(rest) if row % 2] + english_filler(data)
    sides = [
        _side([pair[side] for pair in hidden], texts, shuffle) for side, texts in enumerate((source, target))
    ]
    rows = [{text: row for row, text in enumerate(side)} for side in sides]
    gold_rows = np.array([[rows[0][a], rows[1][b]] for a, b in hidden], np.int64)
    return BuccLike(language, sides[0], sides[1], gold_rows, known)


def _distinct(pairs: Pairs) -> Pairs:
    """Drop pairs with a side that an earlier pair has."""
    seen: set[tuple[int, str]] = set()
    kept = []
    for pair in pairs:
        keys = {(side, duplicate_key(text)) for side, text in enumerate(pair)}
        if not keys & seen and all(pair):
            kept.append(pair)
            seen |= keys
    return kept


def _side(first: list[str], others: list[str], shuffle: random.Random) -> list[str]:
    """Return all texts once, in random order; ``first`` are known to be distinct."""
    by_key = {duplicate_key(text): text for text in reversed(first + others) if text.strip()}
    side = list(by_key.values())
    shuffle.shuffle(side)
    return side


def ntrex(data: Path, language: str) -> Pairs:
    folder = data / "ntrex" / "NTREX-128"
    return list(
        zip(
            read_texts(folder / f"newstest2019-ref.{language}.txt"),
            read_texts(folder / "newstest2019-src.eng.txt"),
            strict=True,
        )
    )


def distractors(data: Path, language: str) -> Pairs:
    """Aligned pairs of which the set takes one side each: even positions the source, odd the English."""
    flores, tatoeba, _ = LANGUAGES[language]
    files = [
        (data / "flores" / "text" / f"{flores}.txt", data / "flores" / "text" / "eng_Latn.txt"),
        tuple(data / "tatoeba" / f"tatoeba.{tatoeba}-eng.{side}" for side in (tatoeba, "eng")),
    ]
    return _distinct([pair for a, b in files for pair in zip(read_texts(a), read_texts(b), strict=True)])


def filler(data: Path, language: str) -> list[str]:
    """Source sentences whose articles or translations are not on the English side."""
    train, _, xquad = LANGUAGES[language]
    return _xquad(data, xquad, articles_even=True) + _training_texts(data, train)


def english_filler(data: Path) -> list[str]:
    """English sentences of the other articles, and questions. (MKQA asks some questions twice in other words,
    so it may not stand on both sides.)
    """
    with (data / "mkqa" / "mkqa_queries.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return _xquad(data, "en", articles_even=False) + [row["en"] for row in rows[:FILLER]]


def _xquad(data: Path, language: str | None, *, articles_even: bool) -> list[str]:
    texts = []
    with (data / "xquadr" / "corpus.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            article = int(row["sid"].split(":")[1].split(".")[0])
            if row["lang"] == language and (article % 2 == 0) == articles_even:
                texts.append(row["text"])
    return texts


def _training_texts(data: Path, language: str) -> list[str]:
    """Return `FILLER` long sentences, chosen by a hash of the text, so always the same."""
    texts = (text for name, text in _training_rows(data) if name == language and len(text) >= _LONG)
    chosen = sorted({zlib.crc32(text.encode()): text for text in texts}.items())[:FILLER]
    return [text for _, text in chosen]


def _training_rows(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "train").glob("pairs-*.tsv")):
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                _, name, text = line.rstrip("\n").split("\t")
                yield name, text
