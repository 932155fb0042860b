"""Mining sets: two sides of which few sentences have a partner, for development and for test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.mining.duplicates import distinct_rows, duplicate_key
from embedsvc.textfiles import iterate_lines, read_texts
from training.evaluation.files import read_aligned

_DEV_NAMES = ("training", "dev", "sample")
_NTREX_ENGLISH = "newstest2019-src.eng.txt"
_DEV_LINES = 600
_FIFTHS = 5  # of the lines, one fifth stands on both sides, two on the one side only, two on the other


@dataclass(frozen=True)
class MiningSet:
    """Two sides, each text once, and the rows that translate each other, ``gold`` ``(pairs, 2)``."""

    source: list[str]
    target: list[str]
    gold: NDArray[np.int64]


@dataclass(frozen=True)
class DevAndTest:
    """The set to choose a threshold on, and the one to apply it to."""

    language: str
    dev: MiningSet
    test: MiningSet


def bucc_files(data: Path) -> list[Path]:
    """Return the files of the test sides, ``<xx>-en.test.<xx>``, in ``data/bucc`` or below."""
    found = sorted((data / "bucc").rglob("*-en.test.*"))
    return [path for path in found if path.suffix == f".{path.name.split('-')[0]}"]


def read_bucc(test: Path) -> DevAndTest:
    """Return the sets of a pair of languages in BUCC's layout: id, tab, text; gold: two ids.

    Raises NotFoundError unless the test has gold, and ``training``, ``dev`` or ``sample`` beside it.
    """
    language, pair = test.suffix[1:], test.name.split(".")[0]
    dev = next((n for n in _DEV_NAMES if (test.parent / f"{pair}.{n}.gold").is_file()), None)
    if dev is None:
        names = ", ".join(f"{pair}.{name}.gold" for name in _DEV_NAMES)
        raise NotFoundError(f"bucc: none of {names} in {test.parent}, to choose the threshold on")
    return DevAndTest(language, *(_read_set(test.parent / f"{pair}.{n}", language) for n in (dev, "test")))


def _read_set(stem: Path, language: str) -> MiningSet:
    source, target = (dict(_fields(stem.with_name(f"{stem.name}.{side}"))) for side in (language, "en"))
    gold_file = stem.with_name(f"{stem.name}.gold")
    gold = list(_fields(gold_file))
    for a, b in gold:
        if a not in source or b not in target:
            raise InvalidInputError(f"{gold_file}: {a!r} or {b!r} is not an id of the texts")
    return mining_set(list(source.values()), list(target.values()), [(source[a], target[b]) for a, b in gold])


def _fields(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in iterate_lines(path):
        first, tab, second = line.partition("\t")
        if not tab or not second.strip():
            raise InvalidInputError(f"{path} line {number}: expected two fields with a tab between them")
        yield first, second


def mining_set(source: list[str], target: list[str], pairs: list[tuple[str, str]]) -> MiningSet:
    """Return the set of two sides, equal texts of a side becoming one; ``pairs`` are texts of them."""
    rows: list[dict[str, int]] = []
    texts: list[list[str]] = []
    for side in (source, target):
        texts.append([side[row] for row in distinct_rows(side)])
        rows.append({duplicate_key(text): row for row, text in enumerate(texts[-1])})
    gold = sorted({(rows[0][duplicate_key(a)], rows[1][duplicate_key(b)]) for a, b in pairs})
    if not gold:
        raise InvalidInputError("bucc: a set without gold pairs says nothing")
    return MiningSet(texts[0], texts[1], np.array(gold, np.int64))


def ntrex_folder(data: Path) -> Path:
    """Return the folder with NTREX-128's texts; raise NotFoundError naming both kinds of set."""
    for folder in (data / "ntrex" / "NTREX-128", data / "NTREX-128", data):
        if (folder / _NTREX_ENGLISH).is_file():
            return folder
    raise NotFoundError(
        f"bucc: neither <xx>-en.test.<xx> (BUCC's layout, with .en, .gold and the training set) "
        f"in {data / 'bucc'} nor {_NTREX_ENGLISH} in {data / 'ntrex' / 'NTREX-128'}"
    )


def ntrex_sets(folder: Path) -> Iterator[DevAndTest]:
    """Yield a set made of NTREX-128 per language: the same lines are hidden in all of them."""
    english_file = folder / _NTREX_ENGLISH
    english = read_texts(english_file)
    if len(english) <= 2 * _FIFTHS:
        raise InvalidInputError(f"{english_file} has {len(english)} lines; more than {2 * _FIFTHS} needed")
    order = np.random.default_rng(0).permutation(len(english))
    dev = min(_DEV_LINES, len(english) // 2)
    for path in sorted(folder.glob("newstest2019-ref.*.txt")):
        texts = read_aligned(path, len(english), english_file)
        sets = [_hidden(texts, english, lines) for lines in (order[:dev], order[dev:])]
        yield DevAndTest(path.name.split(".")[1], *sets)


def _hidden(texts: list[str], english: list[str], lines: NDArray[np.int64]) -> MiningSet:
    """Both sides of a fifth of the lines; of the others, alternately, one side."""
    fifth = max(1, len(lines) // _FIFTHS)
    both = np.sort(lines[:fifth])
    sources, targets = (np.sort(np.append(both, lines[fifth + side :: 2])) for side in (0, 1))
    pairs = [(texts[line], english[line]) for line in both]
    return mining_set([texts[line] for line in sources], [english[line] for line in targets], pairs)
