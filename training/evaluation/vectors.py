"""Vectors of test sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.options import InputType


def encoded(
    encoder: Encoder,
    texts: Sequence[str],
    input_type: InputType | None = None,
    *,
    prompt_name: str | None = None,
) -> NDArray[np.float32]:
    """Return unit rows ``(n, dim)``, texts cut to the model's limit, with the prompt of a role or that named.

    A text of which the model knows nothing has a vector of zeros, to which nothing is near; here it points
    in a random direction, always the same, so that it finds its partner as often as by chance.
    """
    vectors: NDArray[np.float32] = encoder.encode(
        texts, input_type=input_type, prompt_name=prompt_name, truncate="end"
    )
    unknown = np.flatnonzero(~vectors.any(axis=1))
    if len(unknown):
        directions = np.random.default_rng(0).normal(size=(len(vectors), vectors.shape[1]))[unknown]
        vectors[unknown] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return vectors
