"""A corpus of twins: two sentences that differ in one word, which stands nowhere else.

A batch seldom holds both, so that a model learns what the rest of the sentence is, and no more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.cloned import LETTERS, lexicon

STEM_WORDS, SHARED = 4, 120


def write_twins(path: Path, *, families: int, seed: int = 0) -> list[tuple[str, dict[str, str]]]:
    """Write each sentence with its image in every cloned language; return (English, image by language)."""
    generator = np.random.default_rng(seed)
    own = SHARED + np.arange(2 * families).reshape(families, 2)
    english = lexicon(SHARED + 2 * families, "qrstuvwxyz", generator)
    clones = {code: lexicon(SHARED + 2 * families, letters, generator) for code, letters in LETTERS.items()}
    sentences = []
    for family in range(families):
        stem = generator.integers(0, SHARED, size=STEM_WORDS)
        for word in own[family]:
            picks = [*stem.tolist(), int(word)]
            images = {code: " ".join(words[w] for w in picks) for code, words in clones.items()}
            sentences.append((" ".join(english[w] for w in picks), images))
    lines = [f"{first}\t{code}\t{image}" for first, images in sentences for code, image in images.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sentences
