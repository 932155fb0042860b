"""What is kept of texts in training: token ids as flat arrays, and keys that tell equal texts."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


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
        positions = np.arange(lengths.sum()) + np.repeat(begins - (ends - lengths), lengths)
        return self.ids[positions], lengths

    def part(self, rows: NDArray[np.int64]) -> TokenBags:
        """Return the bags of the given texts."""
        ids, lengths = self.take(rows)
        return TokenBags(ids, np.concatenate([[0], np.cumsum(lengths)]))


def joined(bags: Sequence[TokenBags]) -> TokenBags:
    """Return the texts of all bags, one after the other."""
    lengths = np.concatenate([one.lengths for one in bags])
    return TokenBags(np.concatenate([one.ids for one in bags]), np.concatenate([[0], np.cumsum(lengths)]))


def token_bags(rows: Sequence[Sequence[int]]) -> TokenBags:
    """Return the token ids of each text as one."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.array([token for row in rows for token in row], np.int32)
    return TokenBags(ids, np.concatenate([[0], np.cumsum(lengths)]))


def text_keys(texts: Iterable[str]) -> NDArray[np.int64]:
    """Return a 63-bit key per text, equal for texts that differ only in case, spaces and punctuation."""
    texts = [*texts]
    digests = b"".join(
        [
            blake2b((folded or text).encode(), digest_size=8).digest()
            for folded, text in zip(folded_texts(texts), texts, strict=True)
        ]
    )
    keys: NDArray[np.int64] = (np.frombuffer(digests, "<u8") >> np.uint64(1)).astype(np.int64)
    return keys


def folded_texts(texts: Iterable[str]) -> list[str]:
    """Return the letters and digits of each text, without case."""
    whole = [
        text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold() for text in texts
    ]
    # All characters at once: one after the other they would be the slowest part of reading data.
    characters = np.frombuffer("".join(whole).encode("utf-32-le", "surrogatepass"), "<u4")
    kept = _letters_and_digits()[characters]
    ends = np.cumsum(np.fromiter(map(len, whole), np.int64, len(whole)))
    ends = np.concatenate([[0], np.cumsum(kept)])[ends].tolist()
    folded = characters[kept].tobytes().decode("utf-32-le", "surrogatepass")
    return [folded[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@lru_cache(maxsize=1)
def _letters_and_digits() -> NDArray[np.bool_]:
    """(code points,) whether each is a letter or a digit."""
    return np.fromiter((chr(code).isalnum() for code in range(sys.maxunicode + 1)), np.bool_)
