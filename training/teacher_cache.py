"""The teacher's vectors, made once: on disk by teacher and text, shared by all runs of a user.

    <teacher fingerprint>-<settings>/<hash of the texts>/     shards (`indexing.ShardWriter`) and keys.npy

Texts that no folder has yet get a folder of their own. One that was interrupted is gone on with when
the same texts are asked for again, and its finished shards need not be made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.textfiles import atomic_write
from indexing import IndexFileError, ShardWriter, VectorShards, open_vector_shards

_ENCODE_TEXTS = 16_384
_KEYS = "keys.npy"


class TeacherCache:
    """Vectors of one teacher, float16 unit rows."""

    def __init__(self, encoder: Encoder, folder: Path, *, max_tokens: int | None = None) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._folder = folder / f"{encoder.fingerprint}-{max_tokens or 'all'}"

    def vectors(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float16]:
        """Return (texts, teacher's dimension); encode what no earlier call has, and what is damaged.

        Raises InvalidInputError for a text that the teacher gives no direction to, StorageError when
        the cache holds something else where the vectors should be.
        """
        keys = exact_keys(texts)
        found = np.zeros(len(texts), np.bool_)
        vectors = np.empty((len(texts), self._encoder.dimension), np.float16)
        for part in sorted(self._folder.glob(f"*/{_KEYS}")):
            self._take(part.parent, keys, found, vectors)
        missing = np.flatnonzero(~found)
        if len(missing):
            _, first = np.unique(keys[missing], return_index=True)
            rows = missing[np.sort(first)]
            part_folder = self._encode([texts[row] for row in rows], keys[rows], progress)
            self._take(part_folder, keys, found, vectors)
        return vectors

    def _take(
        self, part: Path, keys: NDArray[np.int64], found: NDArray[np.bool_], vectors: NDArray[np.float16]
    ) -> None:
        """Copy the vectors of every text that the part has."""
        shards = _opened(part)
        if shards is None:
            return
        known = np.load(part / _KEYS)
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
        rows = order[place]
        hit = ~found & (known[rows] == keys)
        for start, stop in shards.bounds():
            here = np.flatnonzero(hit & (rows >= start) & (rows < stop))
            if len(here):
                vectors[here] = shards.read(start, stop)[rows[here] - start]
        found |= hit

    def _encode(self, texts: Sequence[str], keys: NDArray[np.int64], progress: bool) -> Path:
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        part = self._folder / name
        part.mkdir(parents=True, exist_ok=True)
        with atomic_write(part / _KEYS) as file:
            np.save(file, keys)
        extra = {"model": self._encoder.name, "fingerprint": self._encoder.fingerprint, "keys": name}
        try:
            with ShardWriter(part, rows=len(texts), dimension=self._encoder.dimension, extra=extra) as writer:
                self._write(texts, writer, progress)
                writer.close()
        except IndexFileError as error:
            raise StorageError(f"{error}; remove {part} to encode anew") from error
        return part

    def _write(self, texts: Sequence[str], writer: ShardWriter, progress: bool) -> None:
        bar = tqdm(
            total=len(texts),
            initial=writer.next_row,
            desc=f"teacher {self._encoder.name}",
            unit="text",
            disable=not progress,
        )
        with bar:
            while (start := writer.next_row) < len(texts):
                batch = texts[start : start + _ENCODE_TEXTS]
                vectors = self._encoder.encode(
                    batch, truncate="end", max_tokens=self._max_tokens, progress=False
                )
                _check_directions(vectors, batch)
                writer.write(vectors)
                bar.update(len(batch))


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
