"""Random crops of unlabelled texts: two of one text are a pair (Contriever, https://arxiv.org/abs/2112.09118)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags

Shares = tuple[float, float]


def cropped(
    texts: TokenBags, rows: NDArray[np.int64], shares: Shares, generator: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids of one crop of each text back to back, and the length of each.

    A crop's length is a share of its text's, drawn evenly between the two ``shares`` and at least one token;
    its place is any at which it fits.
    """
    whole = texts.starts[rows + 1] - texts.starts[rows]
    lengths = np.floor(whole * generator.uniform(*shares, size=len(rows))).astype(np.int64)
    lengths = np.minimum(np.maximum(lengths, 1), whole)
    begins = texts.starts[rows] + generator.integers(0, whole - lengths + 1)
    ends = np.cumsum(lengths)
    positions = np.arange(ends[-1]) + np.repeat(begins - (ends - lengths), lengths)
    return texts.ids[positions], lengths
