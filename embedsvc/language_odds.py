"""Whether texts are in the language they should be in: py3langid's model, on many texts at once.

The model is an automaton that finds features (byte sequences) and naive Bayes over their counts. Its own
loop goes byte by byte in Python; here one step takes the next byte of a thousand texts. `tests` compare both.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.languages import FOLDED_LABELS, LABELS_WITHOUT_LANGUAGE, identifier, normalize_language

_TEXTS = 1_024  # at once; sorted by length, so that few bytes are padding
# Nearly one written language: a sentence of one is often likelier in another.
_NEARLY_ONE = {"bs", "hr", "sr"}
# Of Nigerian Fulfulde, 4 % of its own lines are taken for another language by ten to one.
_UNRELIABLE = {"fuv"}

Floats = NDArray[np.float32]


def language_odds(texts: Sequence[str], language: str) -> Floats:
    """Return how many times as probable as ``language`` the likeliest other one of each text is ``(n,)``.

    Near 0 where ``language`` is the likeliest. ``language`` is one of `detectable_languages`; Bosnian,
    Croatian and Serbian count as one. Probabilities are the detector's, which allow for length: of a short
    text all languages are about equally probable.
    """
    model = _model()
    wanted = model.columns(_NEARLY_ONE if language in _NEARLY_ONE else {language})
    other = model.is_language & ~wanted
    data = [_encoded(text) for text in texts]
    order = sorted(range(len(data)), key=lambda i: len(data[i]))
    odds = np.empty(len(data), np.float32)
    for begin in range(0, len(order), _TEXTS):
        chosen = order[begin : begin + _TEXTS]
        chances = model.probabilities([data[i] for i in chosen])
        odds[chosen] = chances[:, other].max(axis=1) / np.maximum(chances[:, wanted].sum(axis=1), 1e-30)
    return odds


def detectable_languages() -> Set[str]:
    """Return the codes of the languages that the detector recognises reliably."""
    return frozenset(_model().codes) - _UNRELIABLE - LABELS_WITHOUT_LANGUAGE


def _encoded(text: str) -> bytes:
    """Return what the detector reads of a text."""
    lowered = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", lowered).encode(errors="surrogatepass")


@dataclass(frozen=True, eq=False)
class _Model:
    """The arrays of the detector: transitions of the automaton, weights ``(features, labels)``, languages.

    ``label_is_of`` ``(labels, languages)`` is 1 where a label is of a language, which may have several.
    """

    next_state: NDArray[Any]
    row_start: NDArray[np.int64]
    feature_of_state: NDArray[np.int32]
    weights: Floats
    priors: Floats
    label_is_of: Floats
    codes: tuple[str, ...]

    @property
    def is_language(self) -> NDArray[np.bool_]:
        return np.array([code not in LABELS_WITHOUT_LANGUAGE for code in self.codes])

    def columns(self, languages: Set[str]) -> NDArray[np.bool_]:
        """Return the mask of these languages."""
        return np.array([code in languages for code in self.codes])

    def probabilities(self, data: Sequence[bytes]) -> Floats:
        """Return the probability of each language ``(texts, languages)``, as the detector scales them."""
        scores = np.zeros((len(data), len(self.priors)), np.float32)
        ends, features, counts = self._counted_features(data)
        logs = np.log1p(counts).astype(np.float32)
        for i, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if begin < end:
                scores[i] = logs[begin:end] @ self.weights[features[begin:end]] + self.priors
        scores /= np.sqrt([[max(len(text), 1)] for text in data])
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        chances: Floats = scores @ self.label_is_of
        chances /= chances.sum(axis=1, keepdims=True)
        return chances

    def _counted_features(
        self, data: Sequence[bytes]
    ) -> tuple[list[int], NDArray[np.int32], NDArray[np.int64]]:
        """Return where each text's features end, the features in order, and how often each occurs."""
        found = np.sort(self._features(data), axis=1)
        begins = found >= 0
        begins[:, 1:] &= found[:, 1:] != found[:, :-1]
        ends = begins.sum(axis=1).cumsum().tolist()
        # The rest of a text's row from its first feature on is features: the next begin, or the row's end.
        positions = np.flatnonzero(begins)
        width = found.shape[1]
        row_ends = (positions // width + 1) * width
        stops = np.minimum(np.append(positions[1:], found.size), row_ends)
        return ends, found.reshape(-1)[positions], stops - positions

    def _features(self, data: Sequence[bytes]) -> NDArray[np.int32]:
        """Return the feature that ends with each byte of texts in order of length, -1 where none does."""
        sizes = np.array([len(text) for text in data])
        width = max(int(sizes.max()), 1)
        padded = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in data), np.uint8)
        letters = np.ascontiguousarray(padded.reshape(len(data), width).T)
        features = np.full((width, len(data)), -1, np.int32)
        states = np.zeros(len(data), np.int64)
        for position, column in enumerate(letters):
            ended = int(sizes.searchsorted(position, side="right"))
            states[ended:] = self.next_state[self.row_start[states[ended:]] + column[ended:]]
            features[position, ended:] = self.feature_of_state[states[ended:]]
        return np.ascontiguousarray(features.T)


@lru_cache(maxsize=1)
def _model() -> _Model:
    found = identifier()
    labels = [_code(label) for label in found.nb_classes]
    codes = tuple(dict.fromkeys(labels))
    return _Model(
        np.asarray(found.tk_nextmove),
        np.asarray(found.tk_row, np.int64) << 8,
        np.asarray(found.tk_output, np.int32),
        found.nb_ptc,
        np.asarray(found.nb_pc, np.float32),
        np.array([[code == label for code in codes] for label in labels], np.float32),
        codes,
    )


def _code(label: str) -> str:
    return label if label in LABELS_WITHOUT_LANGUAGE else normalize_language(FOLDED_LABELS.get(label, label))
