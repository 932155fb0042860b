"""From pooled vectors to what was asked for: truncate dimensions, then renormalise, then quantise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import EmbedsvcError
from embedsvc.options import OutputDtype
from embedsvc.quantize import Calibration, quantize


def finish_vectors(
    vectors: NDArray[np.float32],
    *,
    dimensions: int | None,
    normalize: bool,
    output_dtype: OutputDtype = "float32",
    calibration: Calibration | None = None,
    positions: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Return (n, dimensions) vectors as ``output_dtype``; unit rows when ``normalize``.

    Matryoshka prefixes are cut before normalising: a prefix of a unit vector is not a unit vector.
    A text without any known token has no direction: its vector is zero. int8 and uint8 need a
    calibration. Raises EmbedsvcError when a vector is not finite, naming its place in ``positions``
    (default: its row): a wrong answer is worse than none.
    """
    cut = vectors if dimensions is None else vectors[:, :dimensions]
    if not np.isfinite(cut).all():
        row = int(np.flatnonzero(~np.isfinite(cut).all(axis=1))[0])
        place = row if positions is None else int(positions[row])
        raise EmbedsvcError(f"the model returned a vector that is not finite for input[{place}]")
    if normalize:
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        cut = cut / np.maximum(norms, np.finfo(np.float32).tiny)
    return quantize(cut, output_dtype, calibration)
