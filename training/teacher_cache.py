"""The teacher's vectors, made once: on disk by teacher and text, shared by all runs of a user.

    <teacher fingerprint>-<settings>/<hash of the texts>/     shards (`indexing.ShardWriter`) and keys.npy

Texts that no folder has yet get a folder of their own. One that was interrupted is gone on with when
the same texts are asked for again, and its finished shards need not be made anew. Of all these vectors
only those that are asked for are ever in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.textfiles import atomic_write
from indexing import IndexFileError, ShardWriter, VectorShards, open_vector_shards

_ENCODE_TEXTS = 16_384
_READ_TEXTS = 4096
_GAP = 16  # rows read in vain between two that are wanted
_KEYS = "keys.npy"


class CachedVectors:
    """The vectors (texts, dimension) float16 of some texts, read where they lie: only those asked for."""

    def __init__(self, rows: int, dimension: int) -> None:
        self.dimension = dimension
        self._parts: list[VectorShards] = []
        self._part = np.full(rows, -1, np.int32)  # of each text, the part that has it, and its row there
        self._row = np.empty(rows, np.int64)

    def __len__(self) -> int:
        return len(self._part)

    def missing(self) -> NDArray[np.int64]:
        """Return the texts that no part has."""
        return np.flatnonzero(self._part < 0)

    def add(self, shards: VectorShards, known: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
        """Let a part of texts ``known`` give the vectors of those ``keys`` that none before it has."""
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
        rows = order[place]
        hit = (self._part < 0) & (known[rows] == keys)
        self._part[hit] = len(self._parts)
        self._row[hit] = rows[hit]
        self._parts.append(shards)

    def at(self, texts: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return (n, dimension) of some texts, all of which some part has."""
        vectors = np.empty((len(texts), self.dimension), np.float16)
        for start in range(0, len(texts), _READ_TEXTS):
            chosen = texts[start : start + _READ_TEXTS]
            part, block = self._part[chosen], vectors[start : start + len(chosen)]
            for number in np.unique(part):
                here = np.flatnonzero(part == number)
                block[here] = _rows(self._parts[number], self._row[chosen[here]])
        return vectors


class TeacherCache:
    """Vectors of one teacher, float16 unit rows."""

    def __init__(self, encoder: Encoder, folder: Path, *, max_tokens: int | None = None) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._folder = folder / f"{encoder.fingerprint}-{max_tokens or 'all'}"

    def vectors(self, texts: Sequence[str], *, progress: bool = False) -> CachedVectors:
        """Return the vectors of the texts; encode what no earlier call has, and what is damaged.

        Raises InvalidInputError for a text that the teacher gives no direction to, StorageError when
        the cache holds something else where the vectors should be, or when there is no room.
        """
        keys = exact_keys(texts)
        found = CachedVectors(len(texts), self._encoder.dimension)
        for part in sorted(self._folder.glob(f"*/{_KEYS}")):
            shards = _opened(part.parent)
            if shards is not None:
                found.add(shards, np.load(part), keys)
        missing = found.missing()
        if len(missing):
            _, first = np.unique(keys[missing], return_index=True)
            rows = missing[np.sort(first)]
            found.add(self._encoded(_Chosen(texts, rows), keys[rows], progress), keys[rows], keys)
        return found

    def _encoded(self, texts: _Chosen, keys: NDArray[np.int64], progress: bool) -> VectorShards:
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        part = self._folder / name
        part.mkdir(parents=True, exist_ok=True)
        with atomic_write(part / _KEYS) as file:
            np.save(file, keys)
        extra = {"model": self._encoder.name, "fingerprint": self._encoder.fingerprint, "keys": name}
        try:
            with ShardWriter(part, rows=len(texts), dimension=self._encoder.dimension, extra=extra) as writer:
                self._write(texts, writer, progress)
                return writer.close()
        except IndexFileError as error:
            raise StorageError(f"{error}; remove {part} to encode anew") from error
        except OSError as error:
            raise StorageError(
                f"vectors of the teacher cannot be written: {error}; the same command goes on"
            ) from error

    def _write(self, texts: _Chosen, writer: ShardWriter, progress: bool) -> None:
        bar = tqdm(
            total=len(texts),
            initial=writer.next_row,
            desc=f"teacher {self._encoder.name}",
            unit="text",
            disable=not progress,
        )
        with bar:
            while (start := writer.next_row) < len(texts):
                batch = texts.between(start, start + _ENCODE_TEXTS)
                vectors = self._encoder.encode(
                    batch, truncate="end", max_tokens=self._max_tokens, progress=False
                )
                _check_directions(vectors, batch)
                writer.write(vectors)
                bar.update(len(batch))


@dataclass(frozen=True)
class _Chosen:
    """Some of the texts, which need not be in memory."""

    texts: Sequence[str]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def between(self, start: int, stop: int) -> list[str]:
        return [self.texts[row] for row in self.rows[start:stop].tolist()]


def _rows(shards: VectorShards, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return (n, dimension): rows in any order, those that lie near each other read together."""
    vectors = np.empty((len(rows), shards.dimension), np.float16)
    order = np.argsort(rows, kind="stable")
    for near in np.split(order, np.flatnonzero(np.diff(rows[order]) > _GAP) + 1):
        first, last = int(rows[near[0]]), int(rows[near[-1]])
        vectors[near] = shards.read(first, last + 1)[rows[near] - first]
    return vectors


def _opened(part: Path) -> VectorShards | None:
    """The shards of a finished part; None when it was interrupted or is damaged."""
    try:
        return open_vector_shards(part)
    except IndexFileError:
        return None


def _check_directions(vectors: NDArray[np.float32], texts: Sequence[str]) -> None:
    empty = np.flatnonzero(~vectors.any(axis=1))
    if len(empty):
        raise InvalidInputError(
            f"the teacher knows no token of {texts[empty[0]][:80]!r}: its vector has no direction"
        )


def exact_keys(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a 63-bit key per text, equal for equal texts only."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.fromiter((int.from_bytes(digest, "little") >> 1 for digest in digests), np.int64, len(texts))
