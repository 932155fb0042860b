"""Cloned languages: a made-up English and bijections of its words, a corpus with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LETTERS = {"clone_Latn": "abcdefghijklmnop", "klon_Cyrl": "абвгдежзийклмноп"}


def write_cloned_pairs(
    path: Path,
    *,
    sentences: int = 1500,
    words: int = 300,
    shortest: int = 3,
    longest: int = 8,
    unique: bool = False,
    seed: int = 0,
) -> None:
    """Write grouped TSV lines: every sentence with its word-by-word image in each cloned language."""
    generator = np.random.default_rng(seed)
    english = lexicon(words, "qrstuvwxyz", generator)
    clones = {code: lexicon(words, letters, generator) for code, letters in LETTERS.items()}
    lines = []
    for number in range(sentences):
        picks = generator.integers(0, words, size=generator.integers(shortest, longest + 1))
        if unique:
            picks[0] = number
        first = " ".join(english[w] for w in picks)
        for code, words_of in clones.items():
            image = " ".join(words_of[w] for w in generator.permutation(picks))
            lines.append(f"{first}\t{code}\t{image}")
            first = ""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def lexicon(words: int, letters: str, generator: np.random.Generator) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < words:
        found["".join(generator.choice(list(letters), size=generator.integers(3, 7)))] = None
    return list(found)


RECIPE = """
name = "cloned"
seed = 3
[data]
pairs = ["pairs.tsv"]
held_out_groups = 100
[tokenizer]
vocabulary = 1200
sample = 3000
[sampling]
token_dropout = 0.1
[model]
dimension = 32
matryoshka = [8, 16]
[loss]
scale = 20.0
margin = 0.3
[schedule]
steps = {steps}
batch = 128
learning_rate = {learning_rate}
warmup_steps = 10
checkpoint_every = 20
evaluate_every = 1000
log_every = 10
threads = 1
"""
