"""The one vector layout: float32, C-contiguous ``(n, dim)``, unit rows. Checked at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import VectorError

UNIT_TOLERANCE = 1e-3
"""How far the length of a unit row may be from 1; wide enough for rows that were stored as float16."""


def check_vectors(
    array: NDArray[Any],
    *,
    dimension: int | None = None,
    unit: bool = True,
    name: str = "vectors",
    first_row: int = 0,
) -> NDArray[np.float32]:
    """Return ``array`` as float32, C-contiguous ``(n, dim)``; copy only if it is not so already.

    ``n`` may be 0, ``dim`` may not. ``name`` is what error messages call the array, ``first_row`` the number
    that its first row has there.

    Raises:
        VectorError: not a floating array of two dimensions, another width than ``dimension``, a row
            with NaN or infinity, or (with ``unit``) a row whose length is not 1.
    """
    vectors = _as_float32_matrix(array, name)
    width = vectors.shape[1]
    if width == 0 or dimension not in (None, width):
        raise VectorError(f"{name} have dimension {width}; expected {dimension or 'at least 1'}")
    lengths = _finite_lengths(vectors, name, first_row)
    if unit:
        wrong = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
        if len(wrong):
            raise VectorError(
                f"{name}[{first_row + wrong[0]}] has length {lengths[wrong[0]]:.4g}; rows must have length 1 "
                f"(within {UNIT_TOLERANCE}; {len(wrong)} of {len(vectors)} rows have not)"
            )
    return vectors


def normalize_rows(array: NDArray[Any], *, name: str = "vectors", first_row: int = 0) -> NDArray[np.float32]:
    """Return a float32 copy of ``array`` ``(n, dim)`` with every row scaled to length 1.

    Raises:
        VectorError: as `check_vectors`, or a row of zeros, which has no direction.
    """
    vectors = check_vectors(array, unit=False, name=name, first_row=first_row)
    # Scaled by the largest value first, so that the squares neither overflow nor vanish.
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    zero = np.flatnonzero(largest == 0)
    if len(zero):
        raise VectorError(f"{name}[{first_row + zero[0]}] is all zeros and cannot be normalised")
    scaled = vectors / largest
    rows: NDArray[np.float32] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return rows


def _as_float32_matrix(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    if not isinstance(array, np.ndarray):
        raise VectorError(f"{name} must be a numpy array, not {type(array).__name__}")
    if not np.issubdtype(array.dtype, np.floating):
        raise VectorError(f"{name} have dtype {array.dtype}; expected float32 (or another float)")
    if array.ndim != 2:
        raise VectorError(f"{name} have shape {array.shape}; expected two dimensions (n, dim)")
    with np.errstate(over="ignore"):  # a float64 too large becomes inf, and inf is reported below
        vectors: NDArray[np.float32] = np.ascontiguousarray(array, dtype=np.float32)
    return vectors


def _finite_lengths(vectors: NDArray[np.float32], name: str, first_row: int) -> NDArray[np.float32]:
    """Row lengths ``(n,)``; a length is infinite also where only the square overflows."""
    with np.errstate(over="ignore"):
        lengths: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    suspects = np.flatnonzero(~np.isfinite(lengths))
    bad = suspects[~np.isfinite(vectors[suspects]).all(axis=1)]
    if len(bad):
        raise VectorError(
            f"{name}[{first_row + bad[0]}] holds NaN or infinity ({len(bad)} of {len(vectors)} rows do)"
        )
    return lengths
