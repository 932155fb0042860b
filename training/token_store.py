"""The token ids of a side on disk: ``<side>.{ids,starts,counts}.npy`` and, last, ``<side>.tokens.json``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.textfiles import atomic_write, write_json
from training.arrays import ArrayWriter, mapped_array
from training.data import TokenBags, token_bags
from training.text_store import TextStore

_TOKENIZE_TEXTS = 20_000
Tokenize = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True, eq=False)
class SideTokens:
    """The tokens of a side, how often each occurs (ids up to the largest,), and how many texts were cut."""

    bags: TokenBags
    counts: NDArray[np.int64]
    cut: int


@dataclass(frozen=True)
class Tokenization:
    """How texts become ids. ``fingerprint`` tells it from others; texts are cut at ``max_tokens``."""

    ids_of: Tokenize
    fingerprint: str
    max_tokens: int


def stored_tokens(
    texts: TextStore, tokenization: Tokenization, made_of: Mapping[str, Any], path: Path, *, progress: bool
) -> SideTokens:
    """Return the token ids of all texts; write them to ``<path>.*`` unless an earlier call has finished that.

    made_of: what the texts are made of; other texts or another tokenization are tokenized anew.
    """
    made_of = {**made_of, "tokenizer": tokenization.fingerprint, "max_tokens": tokenization.max_tokens}
    manifest = _manifest(_file(path, "tokens.json"))
    if manifest is None or manifest["made_of"] != made_of:
        _file(path, "tokens.json").unlink(missing_ok=True)
        manifest = {"made_of": made_of, "cut": _write(texts, tokenization, path, progress)}
        write_json(_file(path, "tokens.json"), manifest)
    bags = TokenBags(mapped_array(_file(path, "ids.npy")), mapped_array(_file(path, "starts.npy")))
    return SideTokens(bags, np.load(_file(path, "counts.npy")), manifest["cut"])


def tokenized(texts: Sequence[str], tokenization: Tokenization, *, label: str, progress: bool) -> SideTokens:
    """Return the token ids of texts that are in memory; as `stored_tokens`, but kept there."""
    parts, cut = [], 0
    with tqdm(total=len(texts), desc=f"tokenize {label}", unit="text", disable=not progress) as bar:
        for begin in range(0, len(texts), _TOKENIZE_TEXTS):
            rows = tokenization.ids_of(texts[begin : begin + _TOKENIZE_TEXTS])
            cut += sum(len(row) > tokenization.max_tokens for row in rows)
            parts.append(token_bags([row[: tokenization.max_tokens] for row in rows]))
            bar.update(len(rows))
    ids = np.concatenate([part.ids for part in parts])
    starts = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
    return SideTokens(TokenBags(ids, starts), np.bincount(ids), cut)


def _file(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _manifest(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) and "made_of" in found else None
    return None


def _write(texts: TextStore, tokenization: Tokenization, path: Path, progress: bool) -> int:
    """Write ids, where each text's start, and counts; return how many texts were cut."""
    counts, cut = np.zeros(0, np.int64), 0
    with (
        ArrayWriter(_file(path, "ids.npy"), np.int32) as ids,
        ArrayWriter(_file(path, "starts.npy"), np.int64) as starts,
        tqdm(total=len(texts), desc=f"tokenize {path.name}", unit="text", disable=not progress) as bar,
    ):
        starts.append(np.zeros(1, np.int64))
        for begin in range(0, len(texts), _TOKENIZE_TEXTS):
            rows = tokenization.ids_of(texts[begin : begin + _TOKENIZE_TEXTS])
            cut += sum(len(row) > tokenization.max_tokens for row in rows)
            bags = token_bags([row[: tokenization.max_tokens] for row in rows])
            starts.append(ids.rows + bags.starts[1:])
            ids.append(bags.ids)
            counts = _added(counts, np.bincount(bags.ids, minlength=len(counts)))
            bar.update(len(rows))
        ids.finish()
        starts.finish()
    with atomic_write(_file(path, "counts.npy")) as file:
        np.save(file, counts)
    return cut


def _added(counts: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two arrays, the second as long as the first or longer."""
    summed = more.copy()
    summed[: len(counts)] += counts
    return summed
