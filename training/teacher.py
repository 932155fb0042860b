"""The teacher of a run: its vectors of every English sentence, in the shape that the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.cache import cache_folder
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError, StorageError
from training.arrays import ArrayWriter
from training.teacher_cache import CachedVectors, TeacherCache
from training.teacher_config import TeacherConfig

_FIT_TEXTS = 100_000  # enough for directions in a space of a thousand dimensions
_BLOCK_TEXTS = 65_536  # in memory at once


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
        turn = principal(vectors, dimension) if config.projection == "pca" else None
        write_vectors(vectors, turn, path)
    return Teacher(np.load(path, mmap_mode="r"), config.projection == "learned")


def write_vectors(vectors: CachedVectors, turn: Turn | None, path: Path) -> None:
    """Write the vectors, or what ``turn`` makes of them, a block at a time; the file appears whole.

    Raises StorageError when there is no room.
    """
    unfinished = path.with_suffix(".part")
    try:
        with ArrayWriter(
            unfinished, np.float16, width=turn.dimension if turn else vectors.dimension
        ) as writer:
            for start in range(0, len(vectors), _BLOCK_TEXTS):
                block = vectors.at(np.arange(start, min(start + _BLOCK_TEXTS, len(vectors))))
                writer.append(turn(block) if turn else block)
            writer.finish()
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error}; the same command goes on") from error
    unfinished.replace(path)


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


@dataclass(frozen=True)
class Turn:
    """Unit rows along fewer directions: ``directions`` (teacher's dimension, dimension)."""

    directions: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        return int(self.directions.shape[1])

    def __call__(self, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
        """Return (texts, dimension) from (texts, teacher's dimension)."""
        rows = vectors.astype(np.float32) @ self.directions
        turned: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return turned


def principal(vectors: CachedVectors, dimension: int) -> Turn:
    """Return the turn to the first principal directions of the vectors.

    Not centred, so that cosines are kept as well as that many dimensions can.
    """
    step = max(1, -(-len(vectors) // _FIT_TEXTS))
    sample = vectors.at(np.arange(0, len(vectors), step)).astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)  # ascending
    return Turn(np.ascontiguousarray(directions[:, ::-1][:, :dimension], np.float32))
