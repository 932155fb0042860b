"""Which pairs mean the same: those with the same first text, and those that a file says belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def joined_groups(text: NDArray[np.int64], named: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a key per pair, equal for pairs joined by a chain of equal texts and equal named groups.

    text, named: (pairs,) keys; ``named`` is 0 where the file names no group. A key is that of one of the
    texts joined, so that without named groups ``text`` itself comes back.
    """
    with_name = np.flatnonzero(named)
    if not len(with_name):
        return text
    _, texts = np.unique(text[with_name], return_inverse=True)
    _, groups = np.unique(named[with_name], return_inverse=True)
    least = _least_of_component(texts, groups)
    place = np.searchsorted(known := np.unique(text[with_name]), text)
    place = np.minimum(place, len(known) - 1)
    joined: NDArray[np.int64] = np.where(known[place] == text, known[least[place]], text)
    return joined


def _least_of_component(texts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every text the least text that it is joined with, each edge being (texts[i], groups[i])."""
    of_text = np.arange(texts.max() + 1)
    while True:
        of_group = np.full(groups.max() + 1, len(of_text))
        np.minimum.at(of_group, groups, of_text[texts])
        lower = of_text.copy()
        np.minimum.at(lower, texts, of_group[groups])
        lower = lower[lower]  # halves the length of a chain
        if np.array_equal(lower, of_text):
            return of_text
        of_text = lower
