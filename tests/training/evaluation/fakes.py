"""An encoder whose vectors a test chooses, and rows to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from embedsvc.encoder import Encoder


def unit_rows(seed: int, n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class ChosenVectors:
    """What evaluators use of an encoder: a name, a fingerprint, and the vector chosen for each text."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], name: str = "chosen") -> None:
        self.vectors, self.name, self.fingerprint = vectors, name, f"{name}-fingerprint"

    def encode(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        rows = np.array([self.vectors[text] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chosen(vectors: Mapping[str, Sequence[float]], name: str = "chosen") -> Encoder:
    return cast(Encoder, ChosenVectors(vectors, name))
