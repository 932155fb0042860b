"""A corpus of twins: two sentences that differ in one word, which stands nowhere else.

A batch seldom holds both, so that a model learns what the rest of the sentence is, and little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from tests.training.cloned import LETTERS, lexicon

STEM_WORDS, SHARED_WORDS = 4, 120


@dataclass(frozen=True)
class Twins:
    """Sentences 2i and 2i + 1 are twins; ``images`` are the translations of all, by language."""

    english: Sequence[str]
    images: dict[str, Sequence[str]]

    def write(self, path: Path) -> None:
        """Write every pair as training data."""
        lines = [
            f"{english}\t{code}\t{image}"
            for row, english in enumerate(self.english)
            for code, image in ((code, images[row]) for code, images in self.images.items())
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def errors(self, encoder: Encoder) -> float:
        """Return the share of sentences whose nearest text of a language is not their translation."""
        x, own = encoder.encode(self.english), np.arange(len(self.english))
        nearest = [(x @ encoder.encode(images).T).argmax(axis=1) for images in self.images.values()]
        wrong: NDArray[np.bool_] = np.stack(nearest) != own
        return float(wrong.mean())


def twins(families: int, *, seed: int = 0) -> Twins:
    """Return twins over shared words, each with a word of its own, in English and the cloned languages."""
    generator = np.random.default_rng(seed)
    words = SHARED_WORDS + 2 * families
    picks = [
        [*stem, SHARED_WORDS + 2 * family + which]
        for family, stem in enumerate(generator.integers(0, SHARED_WORDS, (families, STEM_WORDS)).tolist())
        for which in range(2)
    ]
    codes = {"eng_Latn": "qrstuvwxyz", **LETTERS}
    said = {}
    for code, letters in codes.items():
        words_of = lexicon(words, letters, generator)
        said[code] = [" ".join(words_of[word] for word in one) for one in picks]
    return Twins(said.pop("eng_Latn"), said)
