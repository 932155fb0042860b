"""Late interaction: each query token with its best passage token (ColBERT, arXiv:2004.12832)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.views import STORED, View
from embedsvc.encoder import Encoder
from embedsvc.errors import StorageError
from embedsvc.options import EncodeOptions


class TokenScorer:
    """Scores passages by their stored token vectors."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def stored(self, texts: Sequence[str]) -> list[bytes]:
        """Return the unit vectors (tokens, dim) of each text's tokens, as float16, as they are stored."""
        options = EncodeOptions(prompt_name=self._encoder.document_prompt_name)
        return [_unit_rows(states).astype(STORED).tobytes() for states in self._states(texts, options)]

    def scores(self, query: str, passages: Sequence[int], view: View) -> NDArray[np.float32]:
        """Return the MaxSim score (n,) of passages: the mean over the query's tokens of their best cosine."""
        options = EncodeOptions(prompt_name=self._encoder.query_prompt_name)
        (states,) = self._states([query], options)
        tokens = _unit_rows(states)
        stored = view.token_vectors(passages)
        return np.array([max_sim(tokens, self._loaded(stored, row)) for row in passages], np.float32)

    def _loaded(self, stored: dict[int, bytes], row: int) -> NDArray[np.float32]:
        width = self._encoder.dimension
        content = stored.get(row)
        if content is None or len(content) % (width * STORED.itemsize):
            raise StorageError(f"passage {row} has no token vectors of {width} float16 each")
        return np.frombuffer(content, STORED).reshape(-1, width).astype(np.float32)

    def _states(self, texts: Sequence[str], options: EncodeOptions) -> list[NDArray[np.float32]]:
        return self._encoder.encode_tokens(texts, options).vectors


def max_sim(query: NDArray[np.float32], passage: NDArray[np.float32]) -> float:
    """Return the mean over ``query`` (m, dim) of each row's largest product with ``passage`` (n, dim)."""
    if not len(query) or not len(passage):
        return 0.0
    return float((query @ passage.T).max(axis=1).mean())


def _unit_rows(states: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    return np.asarray(states / np.where(lengths > 0, lengths, 1), np.float32)
