"""Character n-grams that pieces of a vocabulary have in common.

A piece's vector is its own plus those of its n-grams (Bojanowski et al. 2017, arXiv:1607.04606), so that a
rare piece learns from those spelt like it, in other languages too. They are added up when the model is
written: a server has no more to do.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

_LENGTHS = (3, 4, 5)
_LETTERS = 3  # of the shortest piece that has n-grams
_INSIDE = "##"
_BEGINS = ("▁", "Ġ")
_BEGIN = "<"


def piece_ngrams(tokenizer: Tokenizer, least: int) -> csr_matrix:
    """Return float32 (vocabulary, n-grams), 1 / sqrt(n) for each of the n n-grams of a piece.

    N-grams of 3 to 5 letters that at least ``least`` pieces have; the begin of a word counts as a letter.
    Special tokens and pieces of one or two letters have none.
    """
    found = _found(tokenizer)
    pieces = Counter(ngram for ngrams in found for ngram in ngrams)
    column = {
        ngram: number for number, ngram in enumerate(n for n, count in pieces.items() if count >= least)
    }
    columns = [[column[ngram] for ngram in ngrams if ngram in column] for ngrams in found]
    lengths = np.array([len(one) for one in columns], np.int64)
    values = np.repeat(1.0 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.array([number for one in columns for number in one], np.int64)
    return csr_matrix((values, flat, starts), shape=(len(found), len(column)))


def _found(tokenizer: Tokenizer) -> list[list[str]]:
    """Return the distinct n-grams of each piece, in the order of the ids."""
    special = set(tokenizer.get_added_tokens_decoder())
    vocabulary = tokenizer.get_vocab()
    marked = any(piece.startswith(_BEGINS) for piece in vocabulary)
    found: list[list[str]] = [[] for _ in range(max(vocabulary.values()) + 1)]
    for piece, number in vocabulary.items():
        if number not in special:
            found[number] = _ngrams(*_spelt(piece, marked=marked))
    return found


def _spelt(piece: str, *, marked: bool) -> tuple[str, bool]:
    """Return a piece's letters, and whether a word begins with them."""
    if marked:
        return piece.lstrip("".join(_BEGINS)), piece.startswith(_BEGINS)
    return piece.removeprefix(_INSIDE), not piece.startswith(_INSIDE)


def _ngrams(letters: str, begins: bool) -> list[str]:
    if len(letters) < _LETTERS:
        return []
    text = _BEGIN * begins + letters
    every = (text[at : at + length] for length in _LENGTHS for at in range(len(text) - length + 1))
    return list(dict.fromkeys(every))
