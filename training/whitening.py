"""Principal axes of vectors: fewer dimensions for any model, and whitening. Arrays in, a map out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from training.affine import Affine

Vectors = NDArray[np.float32]
_LEAST_SHARE = 1e-6  # of the largest variance: what varies less is noise, and is not blown up


def principal_axes(vectors: Vectors, dimension: int | None = None) -> Affine:
    """Return the centred rotation of (n, dim) vectors onto their ``dimension`` axes of largest variance.

    Raises InvalidInputError for a dimension that so many vectors do not have.
    """
    mean, variances, axes = _decomposed(vectors)
    kept = axes[: _checked(dimension, len(variances), len(vectors))]
    return _centred(kept.T, mean)


def whitening(vectors: Vectors, dimension: int | None = None) -> Affine:
    """Return the map that gives (n, dim) vectors mean 0 and covariance 1 (Huang et al. 2021; Su et al. 2021).

    With all dimensions it turns back to the axes it came from (ZCA, the whitening that changes least);
    with fewer, the axes are the principal ones. Raises as `principal_axes`.
    """
    mean, variances, axes = _decomposed(vectors)
    kept = _checked(dimension, len(variances), len(vectors))
    scales = 1 / np.sqrt(np.maximum(variances, variances[0] * _LEAST_SHARE))
    weight = (axes[:kept] * scales[:kept, None]).T
    return _centred(weight @ axes if dimension is None else weight, mean)


def _decomposed(
    vectors: Vectors,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (dim,), the variances (dim,) falling, and their axes as rows (dim, dim)."""
    if len(vectors) < 2:
        raise InvalidInputError(f"{len(vectors)} vectors have no variance; give more texts", param="texts")
    wide = vectors.astype(np.float64)
    mean = wide.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(wide - mean, rowvar=False, bias=True).reshape(2 * wide.shape[1:]))
    return mean, variances[::-1], axes[:, ::-1].T


def _checked(dimension: int | None, width: int, vectors: int) -> int:
    most = min(width, vectors - 1)
    if dimension is None:
        return width
    if not 1 <= dimension <= most:
        raise InvalidInputError(
            f"dimensions = {dimension}; {vectors:,} vectors of {width} dimensions vary in 1 to {most} axes",
            param="dimensions",
        )
    return dimension


def _centred(weight: NDArray[np.float64], mean: NDArray[np.float64]) -> Affine:
    return Affine(weight.astype(np.float32), (-mean @ weight).astype(np.float32))
