"""Vectors of blocks from the texts of their sentences.

The vector of two sentences joined is near the mean of theirs, weighted by tokens; for a static model it is
that mean. Only where the first alignment is in doubt does another model read the joined texts themselves:
most sentences stand in a row of clear 1-1 beads, and reading every block of up to five sentences would cost
fifteen times the sentences alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.blocks import Blocks, block_sums, mean_blocks
from embedsvc.mining.alignment.document import joined
from embedsvc.options import EncodeOptions

BlockVectors = Literal["auto", "mean", "exact"]
BLOCK_VECTORS: tuple[BlockVectors, ...] = get_args(BlockVectors)
_ROOM = 1  # beads beside a doubtful one that are read again with it
_CLEAR = 0.5  # of the median score: a 1-1 bead above it is clear


@dataclass(frozen=True, eq=False)
class TextSide:
    """The sentences of one document, their blocks by means, and the tokens of every block (sizes, n)."""

    sentences: Sequence[str]
    blocks: Blocks
    tokens: NDArray[np.int64]


def encoded_side(encoder: Encoder, sentences: Sequence[str], sizes: int, options: EncodeOptions) -> TextSide:
    """Return a document with the means of its sentences' vectors; ``options.normalize`` must be false."""
    encoding = encoder.encode_with_usage(sentences, options)
    tokens = np.array(encoding.tokens, np.int64)
    lengths = np.array([len(sentence) for sentence in sentences], np.float64)
    blocks = Blocks(mean_blocks(encoding.vectors, np.maximum(tokens, 1), sizes), block_sums(lengths, sizes))
    return TextSide(sentences, blocks, block_sums(tokens, sizes))


def read_blocks(
    encoder: Encoder, side: TextSide, chosen: NDArray[np.bool_], options: EncodeOptions
) -> Blocks:
    """Return the blocks with the vectors of the joined texts where ``chosen``, (sizes, n), is true.

    A joined text longer than the model takes keeps the mean of its sentences; none is cut.
    """
    limit = encoder.limit(options)
    if limit is not None:
        chosen = chosen & (side.tokens <= limit)
    sizes, last = np.nonzero(chosen)
    ends = [(int(i) - int(size), int(i) + 1) for size, i in zip(sizes, last, strict=True)]
    encoding = encoder.encode_with_usage([joined(side.sentences[a:b]) for a, b in ends], options)
    whole = ~np.array(encoding.truncated, bool)
    vectors = side.blocks.vectors.copy()
    norms = np.linalg.norm(encoding.vectors, axis=1, keepdims=True)
    unit = np.divide(encoding.vectors, norms, out=np.zeros_like(encoding.vectors), where=norms > 0)
    vectors[sizes[whole], last[whole]] = unit[whole]
    return Blocks(vectors, side.blocks.lengths)


def every_block(side: TextSide) -> NDArray[np.bool_]:
    """Return the mask (sizes, n) of the blocks of two sentences and more."""
    sizes, n = side.tokens.shape
    mask: NDArray[np.bool_] = np.arange(n)[None, :] >= np.arange(sizes)[:, None]
    mask[0] = False
    return mask


def doubtful_blocks(
    beads: Sequence[Bead], side: TextSide, name: Literal["source", "target"]
) -> NDArray[np.bool_]:
    """Return the mask of the blocks of two sentences and more that lie within a doubtful stretch of beads."""
    chosen = np.zeros(side.tokens.shape, bool)
    for first, last in _stretches(beads):
        indices = [i for bead in beads[first:last] for i in getattr(bead, name)]
        for size in range(1, len(chosen)):
            chosen[size, [i for i in indices if i - size >= indices[0]]] = True
    return chosen


def _stretches(beads: Sequence[Bead]) -> Iterator[tuple[int, int]]:
    """Yield ranges of beads around those that are no clear 1-1."""
    scores = [bead.score for bead in beads if bead.kind == "1-1"]
    least = _CLEAR * float(np.median(scores)) if scores else np.inf
    doubtful = np.array([bead.kind != "1-1" or bead.score < least for bead in beads])
    near = np.convolve(doubtful, np.ones(2 * _ROOM + 1), "same") > 0
    edges = np.flatnonzero(np.diff(near, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
