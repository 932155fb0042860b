"""Parallel pairs: read translation groups, tokenize them once, keep them as flat arrays.

The format (one module owns it): TSV lines ``English <TAB> language <TAB> other``; an empty first
column repeats the English of the line before, so the translations of one sentence stand together.
Files may be ``.xz`` or ``.gz``.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.errors import InvalidInputError, NotFoundError

_TOKENIZE_TEXTS = 20_000


@dataclass(frozen=True)
class TextPairs:
    """All pairs as text. ``english[group[i]]`` and ``other[i]`` translate each other."""

    english: list[str]
    other: list[str]
    group: NDArray[np.int32]  # (pairs,) index into english
    language: NDArray[np.int16]  # (pairs,) index into languages
    languages: list[str]


@dataclass(frozen=True)
class TokenBags:
    """Token ids of many texts, back to back: text i is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each."""
        return np.diff(self.starts)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of the given texts back to back, and the length of each."""
        begins = self.starts[rows]
        lengths = self.starts[rows + 1] - begins
        ends = np.cumsum(lengths)
        positions = np.arange(ends[-1]) + np.repeat(begins - (ends - lengths), lengths)
        return self.ids[positions], lengths


def pair_files(patterns: Sequence[str], folder: Path) -> list[Path]:
    """Return the files that the patterns name, sorted; raise NotFoundError for a pattern that names none."""
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(folder.glob(pattern)) or sorted(folder.glob(pattern + ".xz"))
        if not matches:
            raise NotFoundError(
                f"no file matches {pattern!r} in {folder}; say where the data is with --data DIR"
            )
        found.extend(matches)
    return found


def read_pairs(files: Sequence[Path], languages: Sequence[str] | None = None) -> TextPairs:
    """Read every pair; raise InvalidInputError naming file and line of the first bad one."""
    wanted = set(languages) if languages else None
    english: list[str] = []
    english_row: dict[str, int] = {}
    codes: dict[str, int] = {}
    other: list[str] = []
    group: list[int] = []
    language: list[int] = []
    for first, code, second in _lines(files):
        if wanted is not None and code not in wanted:
            continue
        row = english_row.setdefault(first, len(english))
        if row == len(english):
            english.append(first)
        group.append(row)
        language.append(codes.setdefault(code, len(codes)))
        other.append(second)
    missing = sorted((wanted or set()) - codes.keys())
    if missing:
        raise InvalidInputError(f"data.languages: no pairs of {', '.join(map(repr, missing))} in the data")
    if not other:
        raise InvalidInputError(f"no pairs in {', '.join(map(str, files))}")
    return TextPairs(english, other, np.array(group, np.int32), np.array(language, np.int16), list(codes))


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    for path in files:
        previous = ""
        with _open(path) as lines:
            for number, raw in enumerate(lines, 1):
                try:
                    line = raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise InvalidInputError(f"{path} line {number}: not UTF-8 ({error.reason})") from error
                parts = line.split("\t")
                if len(parts) != 3 or not (parts[0] or previous) or not parts[1] or not parts[2].strip():
                    raise InvalidInputError(
                        f"{path} line {number}: expected 'English<TAB>language<TAB>other', got {line[:80]!r}"
                    )
                previous = parts[0] or previous
                yield previous, parts[1], parts[2]


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    return path.open("rb")


def tokenize(
    ids_of: Callable[[Sequence[str]], list[list[int]]],
    texts: Sequence[str],
    *,
    max_tokens: int,
    label: str,
    progress: bool,
) -> tuple[TokenBags, int]:
    """Return the token ids of all texts, and how many texts were cut at max_tokens."""
    chunks: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    cut = 0
    bar = tqdm(total=len(texts), desc=f"tokenize {label}", unit="text", disable=not progress)
    for begin in range(0, len(texts), _TOKENIZE_TEXTS):
        ids = ids_of(texts[begin : begin + _TOKENIZE_TEXTS])
        cut += sum(len(row) > max_tokens for row in ids)
        ids = [row[:max_tokens] for row in ids]
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
        chunks.append(np.array([token for row in ids for token in row], np.int32))
        bar.update(len(ids))
    bar.close()
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return TokenBags(np.concatenate(chunks), starts), cut


def text_keys(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a 63-bit key per text, equal for texts that differ only in case, spaces and punctuation."""
    return np.fromiter((_key(text) for text in texts), np.int64, len(texts))


def _key(text: str) -> int:
    folded = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
    digest = hashlib.blake2b((folded or text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
