"""Texts of one batch in parts of like length, padded: little padding, and nothing copied twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags


@dataclass(frozen=True)
class Template:
    """What a model wants around each text, and the id that fills up a batch."""

    prefix: list[int]
    suffix: list[int]
    pad: int

    @property
    def special_tokens(self) -> int:
        return len(self.prefix) + len(self.suffix)


def length_parts(
    lengths: NDArray[np.int64], *, tokens: int, rows: int | None = None
) -> list[NDArray[np.int64]]:
    """Return the texts, longest first, in parts that are padded together.

    lengths: (texts,) with special tokens. Each part has at most ``tokens`` tokens after padding (one text
    may have more) and at most ``rows`` texts.
    """
    order = np.argsort(-lengths, kind="stable")
    parts, begin = [], 0
    while begin < len(order):
        size = max(1, tokens // max(1, int(lengths[order[begin]])))
        end = begin + min(size, rows or size)
        parts.append(order[begin:end])
        begin = end
    return parts


def padded(
    texts: TokenBags, rows: NDArray[np.int64], template: Template
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask (rows, longest) of the given texts, with special tokens, padded on the right."""
    body, lengths = texts.take(rows)
    before, after = len(template.prefix), len(template.suffix)
    ids = np.full((len(rows), max(1, int(lengths.max()) + before + after)), template.pad, np.int64)
    row = np.repeat(np.arange(len(rows)), lengths)
    column = np.arange(len(body)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids[row, before + column] = body
    ids[:, :before] = template.prefix
    ids[np.arange(len(rows))[:, None], before + lengths[:, None] + np.arange(after)] = template.suffix
    mask = np.arange(ids.shape[1]) < (lengths + before + after)[:, None]
    return ids, mask.astype(np.int64)
