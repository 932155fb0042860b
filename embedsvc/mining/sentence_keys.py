"""128-bit keys of sentences, and a table of what was seen that takes 24 bytes for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
Keys = NDArray[np.bytes_]
"""(n,) strings of 16 bytes: numpy sorts and searches them; equal exactly where the hashes are."""

ABSENT = np.iinfo(np.int64).min


def sentence_keys(texts: Iterable[bytes]) -> Keys:
    """Return the key (BLAKE2b) of each text, as UTF-8; the same on every machine and in every process."""
    digests = b"".join(blake2b(text, digest_size=KEY_BYTES).digest() for text in texts)
    return np.frombuffer(digests, f"S{KEY_BYTES}")


class KeyTable:
    """A number for each key: sorted runs, of which two of about one size become one."""

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, NDArray[np.int64]]] = []

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the number of each key ``(n,)``, ABSENT where it has none."""
        found = np.full(len(keys), ABSENT)
        for known, numbers in self._runs:
            positions = np.minimum(known.searchsorted(keys), len(known) - 1)
            hits = known[positions] == keys
            found[hits] = numbers[positions[hits]]
        return found

    def add(self, keys: Keys, numbers: NDArray[np.int64]) -> None:
        """Give distinct new keys their numbers, both ``(n,)``."""
        if len(keys):
            self._runs.append((keys, numbers))
            self._runs[-1] = self._merged(1)
        while any(len(older[0]) < 2 * len(newer[0]) for older, newer in pairwise(self._runs[-2:])):
            self._runs[-2:] = [self._merged(2)]

    def sorted(self) -> tuple[Keys, NDArray[np.int64]]:
        """Return all keys, ascending, and their numbers."""
        self._runs = [self._merged(len(self._runs))]
        return self._runs[0]

    def _merged(self, last: int) -> tuple[Keys, NDArray[np.int64]]:
        runs = self._runs[len(self._runs) - last :]
        keys = np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *(keys for keys, _ in runs)])
        numbers = np.concatenate([np.empty(0, np.int64), *(numbers for _, numbers in runs)])
        order = keys.argsort(kind="stable")
        return keys[order], numbers[order]
