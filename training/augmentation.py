"""Texts changed as they are drawn: words of other languages in the English, Latin letters for other scripts.

This happens when a batch is drawn, not once for all: a text is another one each time, nothing is stored, and
a batch is still a function of (seed, step) alone. Only the texts that are changed are tokenized then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import MissingExtraError
from training.data import TokenBags, token_bags
from training.lexicon import Lexicon
from training.pair_store import TextPairs
from training.sampling_config import SamplingConfig
from training.token_store import Tokenization

_DRAWS = 0xC0DE  # apart from what else a batch draws at random


@dataclass(frozen=True, eq=False)
class Augmentation:
    """``lexicon`` is needed for a share of code-switched texts, ``into_latin`` for transliterated ones."""

    pairs: TextPairs
    tokenization: Tokenization
    sampling: SamplingConfig
    seed: int
    lexicon: Lexicon | None = None
    into_latin: Callable[[str], str] | None = None

    def applied(self, texts: TokenBags, rows: NDArray[np.int64], step: int) -> TokenBags:
        """Return the texts of batch number ``step``, some of them changed.

        texts: the English ones of the pairs ``rows`` (B,), then their translations (2B,).
        """
        generator = np.random.default_rng((self.seed, step, _DRAWS))
        switched = generator.random(len(rows)) < self.sampling.code_switching
        latin = generator.random(len(rows)) < self.sampling.transliteration
        changed = {
            place: self._switched(int(rows[place]), generator) for place in np.flatnonzero(switched).tolist()
        }
        changed |= {
            len(rows) + place: self._in_latin(int(rows[place])) for place in np.flatnonzero(latin).tolist()
        }
        places = [place for place, text in changed.items() if text is not None]
        ids = self.tokenization.ids_of([text for text in changed.values() if text is not None])
        cut = [row[: self.tokenization.max_tokens] for row in ids]
        return replaced(texts, {place: row for place, row in zip(places, cut, strict=True) if row})

    def _switched(self, row: int, generator: np.random.Generator) -> str | None:
        assert self.lexicon is not None
        text = self.pairs.english[int(self.pairs.group[row])]
        new = self.lexicon.switched(text, self.sampling.switched_words, generator)
        return new if new != text else None

    def _in_latin(self, row: int) -> str | None:
        assert self.into_latin is not None
        text = self.pairs.other[row]
        return None if text.isascii() else self.into_latin(text)


def replaced(texts: TokenBags, new: dict[int, list[int]]) -> TokenBags:
    """Return the texts with those at the given places replaced."""
    if not new:
        return texts
    order = sorted(new)
    is_new = np.zeros(len(texts), np.bool_)
    is_new[order] = True
    lengths, bags = texts.lengths, token_bags([new[place] for place in order])
    of_old = np.repeat(~is_new, lengths)
    lengths[order] = bags.lengths
    in_old = np.repeat(~is_new, lengths)
    ids = np.empty(len(in_old), texts.ids.dtype)
    ids[in_old], ids[~in_old] = texts.ids[of_old], bags.ids
    return TokenBags(ids, np.concatenate([[0], np.cumsum(lengths)]))


def latin_letters() -> Callable[[str], str]:
    """Return what writes a text in ASCII; raise MissingExtraError without the library for it."""
    try:
        from anyascii import anyascii
    except ImportError as error:
        raise MissingExtraError("sampling.transliteration", "augment") from error
    write: Callable[[str], str] = anyascii
    return write
