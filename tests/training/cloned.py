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


def write_mixed_texts(
    folder: Path, *, texts: int = 1500, words: int = 200, about: int = 5, length: int = 60, seed: int = 0
) -> None:
    """Write texts about a few words each, every one said in either cloned language, and translated sentences.

    ``mixed.txt`` has the texts, ``pairs.tsv`` sentences in one language and the other. No text says which
    words are the same; that they are about the same things does.
    """
    generator = np.random.default_rng(seed)
    clones = [lexicon(words, letters, generator) for letters in LETTERS.values()]
    lines = []
    for _ in range(texts):
        picks = generator.choice(words, size=about, replace=False)[generator.integers(0, about, size=length)]
        lines.append(" ".join(clones[generator.integers(0, 2)][word] for word in picks))
    (folder / "mixed.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sentences = [generator.choice(words, size=5, replace=False) for _ in range(200)]
    pairs = [[" ".join(clone[word] for word in one) for clone in clones] for one in sentences]
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")


def cloned_lexicons(words: int, generator: np.random.Generator) -> list[list[str]]:
    """Return the words of the made-up English and of every clone, in the same order."""
    return [lexicon(words, letters, generator) for letters in ("qrstuvwxyz", *LETTERS.values())]


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
