"""Vectors of blocks, runs of consecutive sentences.

``vectors[a - 1, i]`` is that of the a sentences that end with sentence i.

Where fewer than a sentences come before (i < a - 1) there is no block; what stands there is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedsvc.errors import DimensionMismatchError, InvalidInputError

Floats = NDArray[np.float32]
_LENGTH_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Blocks:
    """Unit vectors (sizes, sentences, dim) and, where texts are known, ``lengths`` (sizes, sentences)."""

    vectors: Floats
    lengths: NDArray[np.float64] | None = None

    @property
    def sizes(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def sentences(self) -> int:
        return int(self.vectors.shape[1])

    def part(self, sentences: slice) -> Blocks:
        """Return the blocks that end with these sentences."""
        lengths = None if self.lengths is None else self.lengths[:, sentences]
        return Blocks(self.vectors[:, sentences], lengths)


def checked_blocks(vectors: ArrayLike, lengths: ArrayLike | None, name: str) -> Blocks:
    """Return precomputed vectors, (sizes, sentences, dim), as blocks; ``lengths`` are of the sentences.

    Raises InvalidInputError for another shape and for a vector that is not finite or not of length 1,
    naming the block.
    """
    array = np.asarray(vectors)
    if array.ndim != 3 or 0 in array.shape:
        raise InvalidInputError(
            f"{name} vectors have shape {array.shape}; expected (block sizes, sentences, dim)", param=name
        )
    if array.dtype.kind != "f":
        raise InvalidInputError(f"{name} vectors are {array.dtype}; expected floating point", param=name)
    array = np.array(array[: array.shape[1]], np.float32)
    for size, rows in enumerate(array, 1):
        rows[: size - 1] = 0
        _check_rows(rows, size, name)
    return Blocks(array, None if lengths is None else _checked_lengths(lengths, array, name))


def _check_rows(rows: Floats, size: int, name: str) -> None:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    wrong = np.abs(norms - 1) > _LENGTH_TOLERANCE
    wrong[: size - 1] = False
    wrong &= rows.any(axis=1)  # zeros: a block without any known token
    if (~np.isfinite(norms) | wrong).any():
        last = int(np.argmax(~np.isfinite(norms) | wrong))
        raise InvalidInputError(
            f"{name} vectors: sentences {last - size + 1} to {last} have a vector of length "
            f"{norms[last]:.4g}; every block needs one of length 1",
            param=name,
        )


def _checked_lengths(lengths: ArrayLike, vectors: Floats, name: str) -> NDArray[np.float64]:
    array = np.asarray(lengths, np.float64)
    if array.shape != vectors.shape[1:2] or not (array > 0).all():
        raise InvalidInputError(
            f"{name} lengths have shape {array.shape}; expected ({vectors.shape[1]},), all above 0",
            param=name,
        )
    sums: NDArray[np.float64] = block_sums(array, len(vectors))
    return sums


def block_sums(rows: NDArray[Any], sizes: int) -> NDArray[Any]:
    """Return (sizes, n, …): the sums of every run of 1 to ``sizes`` rows, by the last; else 0."""
    sums = np.zeros((min(sizes, len(rows)), *rows.shape), rows.dtype)
    sums[0] = rows
    for size in range(1, len(sums)):
        np.add(sums[size - 1, size - 1 : -1], rows[size:], out=sums[size, size:])
    return sums


def mean_blocks(vectors: NDArray[Any], weights: ArrayLike, sizes: int) -> Floats:
    """Return unit vectors (sizes, n, dim) of the weighted means of every run of sentence vectors (n, dim).

    With the raw vectors of a static model and the numbers of tokens as weights that is the vector of the
    joined text itself; for other models it comes near it.
    """
    weighted = np.asarray(vectors, np.float32) * np.asarray(weights, np.float32)[:, None]
    sums: Floats = block_sums(weighted, sizes)
    norms = np.sqrt(np.einsum("aij,aij->ai", sums, sums))[..., None]
    unit: Floats = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    return unit


def check_widths(source: Blocks, target: Blocks) -> None:
    """Raise DimensionMismatchError unless both sides' vectors have one width."""
    widths = source.vectors.shape[2], target.vectors.shape[2]
    if widths[0] != widths[1]:
        raise DimensionMismatchError(
            f"source vectors have {widths[0]} dimensions, target vectors {widths[1]}"
        )
