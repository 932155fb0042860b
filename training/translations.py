"""Which texts of the data are known to translate each other, looked up by their keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.ragged import ragged

Keys = NDArray[np.int64]


class Translations:
    """Pairs of an English text and another one, by `training.data.text_keys`; each is held once."""

    def __init__(self, english_key: Keys, other_key: Keys) -> None:
        """Take (pairs,) keys of both sides, of which the same pair may come again."""
        self._english, english = np.unique(english_key, return_inverse=True)
        self._other, other = np.unique(other_key, return_inverse=True)
        self._codes: Keys = np.unique(other.astype(np.int64) * len(self._english) + english)

    def known(self, english_key: Keys, other_key: Keys) -> NDArray[np.bool_]:
        """Return, for keys of one shape, whether the two are a pair, or the same text in both languages."""
        english, in_english = _places(self._english, english_key)
        other, in_other = _places(self._other, other_key)
        _, paired = _places(self._codes, other * len(self._english) + english)
        found: NDArray[np.bool_] = (paired & in_english & in_other) | (english_key == other_key)
        return found

    def groups(self, other_key: Keys) -> tuple[Keys, Keys]:
        """Return the keys of all English texts that texts (n,) translate, and which of the n each is of."""
        place, there = _places(self._other, other_key)
        first, last = np.searchsorted(self._codes, np.stack([place, place + 1]) * len(self._english))
        positions, text = ragged(first, np.where(there, last - first, 0))
        return self._english[self._codes[positions] % len(self._english)], text

    def among(self, english_key: Keys, other_key: Keys) -> tuple[Keys, Keys]:
        """Return (hits,) rows of English texts (n,) and of other ones (m,) for which `known` is true."""
        groups, text = self.groups(other_key)
        means = np.concatenate([groups, other_key])  # what the text translates, and the text itself
        text = np.concatenate([text, np.arange(len(other_key))])
        order = np.argsort(english_key, kind="stable")
        first, last = (np.searchsorted(english_key[order], means, side=side) for side in ("left", "right"))
        positions, hit = ragged(first, last - first)
        return order[positions], text[hit]


def _places(ordered: Keys, wanted: Keys) -> tuple[Keys, NDArray[np.bool_]]:
    """Return where each value stands in ascending ones (anywhere, if it does not), and whether it does."""
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return places, ordered[places] == wanted
