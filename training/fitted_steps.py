"""Maps that are fitted on texts and written into the folder: steps of an export, in the order given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, load_encoder, locate_model
from embedsvc.errors import InvalidInputError
from embedsvc.languages import detect_language
from embedsvc.model_folder import ModelFolder
from training.affine import Affine, append_affine, declare_space
from training.corpus_texts import read_corpus
from training.language_means import LanguageMeans, common_subspace
from training.linear_map import MapKind, agreement, fit_map
from training.parity import trusted_encoder
from training.whitening import principal_axes, whitening

Vectors = NDArray[np.float32]
_MOST_TEXTS = 100_000
_MOST_HELD_OUT = 2000
_LEAST_OF_A_LANGUAGE = 20


@dataclass(frozen=True)
class PrincipalAxes:
    """Onto the principal axes of the texts' vectors, maybe fewer; ``whiten`` gives each the same variance."""

    texts: Path
    whiten: bool = False
    dimensions: int | None = None

    def __call__(self, source: ModelFolder, out: Path) -> str:
        """Write ``source`` with the map to ``out``; say what it is.

        A static model's map is of its means of rows, any other's of its unit vectors.
        """
        encoder = trusted_encoder(source)
        texts = _texts(self.texts)
        vectors = encoder.encode(texts, normalize=not source.is_static, truncate="end")
        fit = whitening if self.whiten else principal_axes
        affine = fit(vectors, self.dimensions)
        append_affine(source, out, affine, unit=not source.is_static)
        what = "whitened" if self.whiten else "turned to its principal axes"
        size = affine.weight.shape[1]
        return f"{what}, {size} of {encoder.dimension} dimensions, fitted on {len(texts):,} texts"


@dataclass(frozen=True)
class LanguageNeutral:
    """Without the ``rank`` directions in which the means of the texts' languages differ most."""

    texts: Path
    rank: int = 5

    def __call__(self, source: ModelFolder, out: Path) -> str:
        """Write ``source`` with the map to ``out``; the texts' languages are identified."""
        encoder = trusted_encoder(source)
        texts, languages = _with_languages(_texts(self.texts))
        vectors = encoder.encode(texts, truncate="end")
        directions = common_subspace(LanguageMeans.fit(vectors, languages), self.rank)
        kept = np.eye(encoder.dimension, dtype=np.float32) - directions.T @ directions
        append_affine(source, out, Affine(kept), unit=True)
        return (
            f"without {self.rank} directions that tell {len(set(languages))} languages apart, "
            f"fitted on {len(texts):,} texts"
        )


@dataclass(frozen=True)
class MapTo:
    """Into the space of another model, whose index the vectors then search."""

    texts: Path
    model: str | Path
    kind: MapKind = "procrustes"
    ridge: float = 1e-3

    def __call__(self, source: ModelFolder, out: Path) -> str:
        """Write ``source`` with the map to ``out``; say how far it holds on texts held out."""
        texts = _texts(self.texts)
        if len(texts) < 20:
            raise InvalidInputError(
                f"{self.texts} has {len(texts)} texts; 20 at least are needed", param="texts"
            )
        target = load_encoder(locate_model(self.model))
        a, b = (_encoded(encoder, texts) for encoder in (trusted_encoder(source), target))
        order = np.random.default_rng(0).permutation(len(texts))
        held, fitted = np.split(order, [min(len(texts) // 10, _MOST_HELD_OUT)])
        affine = fit_map(a[fitted], b[fitted], self.kind, ridge=self.ridge)
        sizes = target.folder.matryoshka_dimensions
        append_affine(source, out, affine, unit=True, matryoshka=sizes)
        declare_space(out, target.fingerprint)
        mapped = affine(a[held])
        mapped /= np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return (
            f"mapped into the space of {target.name} (fingerprint `{target.fingerprint}`) by {self.kind}, "
            f"fitted on {len(fitted):,} texts; {agreement(mapped, b[held])}"
        )


@dataclass(frozen=True)
class Wanted:
    """Which of the steps an export is to take; each but ``dimensions`` needs texts."""

    language_neutral: int | None = None
    pca: bool = False
    whiten: bool = False
    dimensions: int | None = None
    map_to: str | None = None
    map_kind: MapKind = "procrustes"


def wanted_steps(texts: Path | None, wanted: Wanted) -> list[LanguageNeutral | PrincipalAxes | MapTo]:
    """Return the steps in the order in which they make sense; raise InvalidInputError when texts lack."""
    if not (wanted.language_neutral or wanted.pca or wanted.whiten or wanted.map_to):
        return []
    if texts is None:
        raise InvalidInputError("a map of the vectors is fitted on texts: give --texts FILE", param="texts")
    steps: list[LanguageNeutral | PrincipalAxes | MapTo] = []
    if wanted.language_neutral is not None:
        steps.append(LanguageNeutral(texts, wanted.language_neutral))
    if wanted.pca or wanted.whiten:
        steps.append(PrincipalAxes(texts, wanted.whiten, wanted.dimensions))
    if wanted.map_to is not None:
        steps.append(MapTo(texts, wanted.map_to, wanted.map_kind))
    return steps


def _encoded(encoder: Encoder, texts: list[str]) -> Vectors:
    vectors: Vectors = encoder.encode(texts, truncate="end")
    return vectors


def _texts(path: Path) -> list[str]:
    """Return the different texts of a file, at most a hundred thousand."""
    return list(islice(_different(read_corpus(path)), _MOST_TEXTS))


def _different(texts: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _with_languages(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the texts of languages that enough of them are in, and these languages."""
    found = [detect_language(text) for text in texts]
    counts = {code: found.count(code) for code in set(found) - {"und"}}
    kept = [i for i, code in enumerate(found) if counts.get(code, 0) >= _LEAST_OF_A_LANGUAGE]
    if len({found[i] for i in kept}) < 2:
        raise InvalidInputError(
            f"the texts are not in two or more languages with {_LEAST_OF_A_LANGUAGE} texts each; "
            f"found {', '.join(f'{code}: {n}' for code, n in sorted(counts.items())) or 'none'}",
            param="texts",
        )
    return [texts[i] for i in kept], [found[i] for i in kept]
