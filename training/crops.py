"""Random crops of unlabelled texts, two of which are a pair (Contriever, https://arxiv.org/abs/2112.09118)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags
from training.draws import Draws
from training.relations import PairKeys, relation_matrix
from training.sampling import Batch, part_rows, without_tokens

Shares = tuple[float, float]


def cropped(
    texts: TokenBags, rows: NDArray[np.int64], shares: Shares, generator: np.random.Generator
) -> TokenBags:
    """Return one crop of each text.

    A crop's length is a share of its text's, drawn evenly between the two ``shares`` and at least one token;
    its place is any at which it fits.
    """
    whole = texts.starts[rows + 1] - texts.starts[rows]
    lengths = np.floor(whole * generator.uniform(*shares, size=len(rows))).astype(np.int64)
    lengths = np.minimum(np.maximum(lengths, 1), whole)
    begins = texts.starts[rows] + generator.integers(0, whole - lengths + 1)
    ends = np.cumsum(lengths)
    positions = np.arange(ends[-1]) + np.repeat(begins - (ends - lengths), lengths)
    return TokenBags(texts.ids[positions], np.concatenate([[0], ends]))


@dataclass(frozen=True)
class CropShape:
    """``size`` texts make a batch; each token of a crop is left out with the chance ``token_dropout``.

    ``part`` (p, n) draws the p-th of n equal parts of each batch.
    """

    size: int
    shares: Shares
    token_dropout: float = 0.0
    part: tuple[int, int] = (0, 1)


class CropSampler:
    """Draw batches of two crops of each text; ``batch(t)`` is the same whenever it is asked for."""

    def __init__(
        self, texts: TokenBags, keys: NDArray[np.int64], draws: Draws, shape: CropShape, *, seed: int
    ) -> None:
        """``keys`` (texts,) are equal for equal texts, which are no negatives of each other."""
        self._texts = texts
        self._keys = keys
        self._draws = draws
        self._shape = shape
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``: first crops of all its texts, then second ones."""
        generator = np.random.default_rng((self._seed, step))
        rows = self._draws(self._shape.size, generator)
        texts = cropped(self._texts, np.tile(rows, 2), self._shape.shares, generator)
        if self._shape.token_dropout:
            texts = without_tokens(texts, self._shape.token_dropout, generator)
        own = part_rows(len(rows), self._shape.part)
        texts = texts.part(np.concatenate([own, len(rows) + own]))
        keys = PairKeys(*[self._keys[rows[own]]] * 3)
        return Batch(texts, rows[own], keys, relation_matrix(keys, keys))
