"""Vectors of blocks from their sentences' texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedsvc.encoder import Encoder
from embedsvc.mining.alignment.blocks import Blocks, block_sums, mean_blocks
from embedsvc.options import EncodeOptions


def encoded_blocks(encoder: Encoder, sentences: Sequence[str], sizes: int, options: EncodeOptions) -> Blocks:
    """Return the blocks of up to ``sizes`` sentences: means of the sentences' vectors, weighted by tokens."""
    encoding = encoder.encode_with_usage(sentences, options)
    lengths = np.array([[len(sentence)] for sentence in sentences], np.float64)
    return Blocks(
        mean_blocks(encoding.vectors, encoding.tokens, sizes), block_sums(lengths, sizes)[:, :, 0]
    )
