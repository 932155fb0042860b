"""The teacher of a run: its vectors of every English sentence, in the shape that the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.cache import cache_folder
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write
from training.loss_config import TeacherConfig
from training.teacher_cache import TeacherCache

_FIT_TEXTS = 100_000  # enough for directions in a space of a thousand dimensions
_PROJECT_TEXTS = 65_536


@dataclass(frozen=True)
class Teacher:
    """``vectors`` (texts, dimension) float16 unit rows, on disk."""

    vectors: NDArray[np.float16]
    learnt_projection: bool  # the student is compared through a learnt matrix

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])


def open_teacher(config: TeacherConfig, *, dimension: int) -> Encoder:
    """Open the teacher of a student with that dimension.

    Raises NotFoundError or ModelError when there is none, InvalidInputError when its dimension is another
    and no projection is given, or when "pca" would have to lengthen the vectors.
    """
    encoder = load_encoder(config.model, precision=config.precision)
    check_dimension(config, encoder.dimension, dimension)
    return encoder


def teach(
    encoder: Encoder,
    config: TeacherConfig,
    texts: Sequence[str],
    path: Path,
    *,
    dimension: int,
    progress: bool,
) -> Teacher:
    """Return the teacher's vectors of the texts, read from ``path`` when an earlier call wrote them there.

    dimension: the student's, to which "pca" cuts them.
    """
    if not path.exists():
        folder = cache_folder("teachers") / config.precision
        cache = TeacherCache(encoder, folder, max_tokens=config.max_tokens)
        vectors = cache.vectors(texts, progress=progress)
        if config.projection == "pca":
            vectors = principal(vectors, dimension)
        with atomic_write(path) as file:
            np.save(file, vectors)
    return Teacher(np.load(path, mmap_mode="r"), config.projection == "learned")


def check_dimension(config: TeacherConfig, teacher: int, student: int) -> None:
    """Raise InvalidInputError, saying what can be done, where the dimensions do not fit."""
    if config.projection == "none" and teacher != student:
        raise InvalidInputError(
            f"the teacher {config.model} has {teacher} dimensions, the student {student}: set "
            f'model.dimension = {teacher}, or teacher.projection = "learned"'
            + (' or "pca"' if teacher > student else "")
        )
    if config.projection == "pca" and teacher < student:
        raise InvalidInputError(
            f'teacher.projection = "pca" cannot lengthen the {teacher} dimensions of {config.model} to the '
            f'student\'s {student}; use "learned", or a smaller model.dimension'
        )


def principal(vectors: NDArray[np.float16], dimension: int) -> NDArray[np.float16]:
    """Return (texts, dimension) unit rows: the vectors along their first principal directions.

    Not centred, so that cosines are kept as well as that many dimensions can.
    """
    step = max(1, -(-len(vectors) // _FIT_TEXTS))
    sample = vectors[::step].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)  # ascending
    turn = np.ascontiguousarray(directions[:, ::-1][:, :dimension], np.float32)
    turned = np.empty((len(vectors), dimension), np.float16)
    for start in range(0, len(vectors), _PROJECT_TEXTS):
        rows = vectors[start : start + _PROJECT_TEXTS].astype(np.float32) @ turn
        turned[start : start + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return turned
