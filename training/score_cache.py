"""A reranker's scores, made once: on disk by reranker, query and text, shared by all runs of a user.

    <reranker fingerprint>-<settings>/<hash of the pairs>.npz     keys and scores of some queries

Scoring that was interrupted goes on after the last file written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.errors import StorageError
from embedsvc.reranker import Reranker, ScoreOptions
from embedsvc.textfiles import atomic_write

_FILE_PAIRS = 4096
_List = tuple[str, list[str]]


class ScoreCache:
    """Scores of one reranker: its logits, whatever activation it has."""

    def __init__(self, reranker: Reranker, folder: Path, *, max_text_tokens: int | None = None) -> None:
        self._reranker = reranker
        self._options = ScoreOptions(max_text_tokens=max_text_tokens, raw=True)
        self._folder = folder / f"{reranker.fingerprint}-{max_text_tokens or 'all'}"

    def scores(self, lists: Iterable[_List], *, progress: bool = False) -> NDArray[np.float32]:
        """Return the score of each text for its query, list by list; score what no earlier call has.

        Raises InvalidInputError for a query that the reranker refuses, StorageError for a damaged file.
        """
        lists = list(lists)
        keys = np.concatenate([_keys(one) for one in lists])
        known = self._known()
        missing = [one for one in lists if any(key not in known for key in _keys(one).tolist())]
        bar = tqdm(
            total=len(missing), desc=f"teacher {self._reranker.name}", unit="query", disable=not progress
        )
        with bar:
            for part in _parts(missing):
                known |= self._score(part)
                bar.update(len(part))
        return np.array([known[key] for key in keys.tolist()], np.float32)

    def _known(self) -> dict[int, float]:
        known: dict[int, float] = {}
        for path in sorted(self._folder.glob("*.npz")):
            try:
                with np.load(path) as part:
                    known |= dict(zip(part["keys"].tolist(), part["scores"].tolist(), strict=True))
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                raise StorageError(f"{path} is damaged; remove it to score anew") from error
        return known

    def _score(self, lists: Sequence[_List]) -> dict[int, float]:
        keys = np.concatenate([_keys(one) for one in lists])
        scored = [self._reranker.score_with_usage(query, texts, self._options) for query, texts in lists]
        scores = np.concatenate([one.scores for one in scored])
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with atomic_write(self._folder / f"{name}.npz") as file:
            np.savez(file, keys=keys, scores=scores)
        return dict(zip(keys.tolist(), scores.tolist(), strict=True))


def _parts(lists: Sequence[_List]) -> Iterable[list[_List]]:
    part: list[_List] = []
    for one in lists:
        part.append(one)
        if sum(len(texts) for _, texts in part) >= _FILE_PAIRS:
            yield part
            part = []
    if part:
        yield part


def _keys(one: _List) -> NDArray[np.int64]:
    query, texts = one
    begin = hashlib.blake2b(digest_size=8)
    begin.update(f"{len(query)} {query}".encode())
    keys = []
    for text in texts:
        digest = begin.copy()
        digest.update(text.encode())
        keys.append(int.from_bytes(digest.digest(), "little") >> 1)
    return np.array(keys, np.int64)
