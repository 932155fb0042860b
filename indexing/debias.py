"""Debiasing of a mixed pool: what only says in which language a text is written, taken out of its vector.

All methods are one linear step per group (language): subtract an offset, then remove the components
along some directions, then renormalise. They differ in what is estimated, and from what:

"center"  the offset is the mean of the group;
"lir"     the directions are the first principal ones of the group, not centred (Yang et al. 2021,
          "A Simple and Effective Method To Eliminate the Self Language Bias", arXiv 2109.04727);
"shift"   the offset is the mean difference of the group's texts from their translations into a pivot
          language (Jang et al. 2026, "Shift", arXiv 2606.18801).

A mean of few vectors is the vectors' own content, and to subtract it destroys them (measured: five per
language cost a quarter of the pooled mAP, one costs two thirds). So every estimate starts from
`PRIOR_ROWS` imaginary rows: of the whole pool for "center" and "lir", of no difference for "shift".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from indexing.debias_file import read_arrays, write_arrays
from indexing.errors import IndexFileError, IndexingError
from indexing.manifest import StrPath
from indexing.vectors import check_vectors

Method = Literal["center", "lir", "shift"]
METHODS: tuple[Method, ...] = get_args(Method)
PRIOR_ROWS = 100
"""Weight of the prior in rows: 5 rows, even of one article, then do no harm; with 1,000 it costs nothing."""
_LEAST_LENGTH = 1e-3  # what is shorter after the removal is rounding, and its direction chance

Vectors = NDArray[np.float32]
Labels = NDArray[Any]


@dataclass(frozen=True)
class ParallelPairs:
    """Translations: row i of ``vectors`` ``(p, dim)``, in language ``groups[i]``, and of ``pivot_vectors``.

    All of ``pivot_vectors`` ``(p, dim)`` are in the language ``pivot``, which "shift" leaves as it is.
    """

    vectors: Vectors
    groups: Labels
    pivot_vectors: Vectors
    pivot: str


@dataclass(frozen=True)
class Debias:
    """A fitted method, made by `fit_debias` or `Debias.load`.

    ``groups`` ``(g,)`` are the known labels, ascending; ``offsets`` ``(g + 1, dim)`` and ``directions``
    ``(g + 1, r, dim)`` belong to them, the last row to every other label. ``unchanged`` names the groups
    that were given but could not be estimated (no parallel pairs): their vectors stay as they are.
    """

    method: Method
    groups: NDArray[np.str_]
    offsets: Vectors
    directions: Vectors
    unchanged: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """The width of a vector."""
        return int(self.offsets.shape[1])

    def apply(self, vectors: NDArray[Any], groups: Labels) -> Vectors:
        """Return ``vectors`` ``(n, dim)`` of documents without their language's part, unit rows.

        ``groups`` ``(n,)`` are their labels. An unknown label is treated as the pool as a whole
        ("center", "lir") or left alone ("shift"). A vector of which nothing remains stays as it was.

        Raises:
            VectorError: ``vectors`` break the vector convention or have another dimension.
            IndexingError: ``groups`` are no labels, or not one per vector.
        """
        vectors = check_vectors(vectors, dimension=self.dimension)
        labels = check_labels(groups, len(vectors))
        changed = vectors.copy()
        position = self._positions(labels)
        for group in np.unique(position):
            rows = np.flatnonzero(position == group)
            part = vectors[rows] - self.offsets[group]
            directions = self.directions[group]
            changed[rows] = part - (part @ directions.T) @ directions
        lengths = np.linalg.norm(changed, axis=1, keepdims=True)
        lost = lengths[:, 0] < _LEAST_LENGTH
        changed[lost], lengths[lost] = vectors[lost], 1
        result: Vectors = changed / lengths
        return result

    def apply_to_queries(self, vectors: NDArray[Any], groups: Labels) -> Vectors:
        """Return ``vectors`` ``(n, dim)`` of queries made comparable with documents after `apply`.

        "center" and "lir" treat both sides alike, as their authors do; a query of undecided language
        takes the label "und" and, when no document has it, what holds for the pool. "shift" is a change
        of the documents only. Raises as `apply`.
        """
        if self.method != "shift":
            return self.apply(vectors, groups)
        check_labels(groups, len(vectors))
        return check_vectors(vectors, dimension=self.dimension)

    def save(self, path: StrPath) -> None:
        """Write the file ``path`` (.npz), durably, in place of what was there.

        Raises:
            OSError: it cannot be written; what was there is untouched.
        """
        arrays = {
            "method": np.array(self.method),
            "groups": self.groups,
            "offsets": self.offsets,
            "directions": self.directions,
            "unchanged": np.array(self.unchanged, dtype=np.str_),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: StrPath) -> Debias:
        """Return what `save` wrote.

        Raises:
            IndexFileError: the file is missing, damaged, of another format version, or holds what
                cannot have been fitted.
        """
        stored = read_arrays(path)
        if stored["method"].item() not in METHODS:
            raise IndexFileError(f"{path}: method is {stored['method'].item()!r}; expected one of {METHODS}")
        return cls(
            stored["method"].item(),
            stored["groups"],
            stored["offsets"],
            stored["directions"],
            tuple(stored["unchanged"].tolist()),
        )

    def _positions(self, labels: NDArray[np.str_]) -> NDArray[np.intp]:
        """The row of each label in ``offsets``: the last for an unknown one."""
        found = np.searchsorted(self.groups, labels)
        known = np.append(self.groups, "")[found] == labels
        return np.where(known & (found < len(self.groups)), found, len(self.groups))


def fit_debias(
    method: Method,
    vectors: NDArray[Any],
    groups: Labels,
    *,
    pairs: ParallelPairs | None = None,
    components: int = 1,
) -> Debias:
    """Fit ``method`` to ``vectors`` ``(n, dim)``, unit rows, of the languages ``groups`` ``(n,)``.

    "shift" needs ``pairs`` of translations, and reports the groups that have none as ``unchanged``.
    ``components`` is how many directions per group "lir" removes.

    Raises:
        VectorError: an array breaks the vector convention, or the dimensions differ.
        IndexingError: an unknown method, labels that are not one per vector, no vectors to learn from,
            ``components`` outside 1 to dim - 1, pairs missing or given to a method that takes none.
    """
    vectors = check_vectors(vectors)
    labels = check_labels(groups, len(vectors))
    _check_request(method, vectors, pairs, components)
    if pairs is not None:
        return _fit_shift(pairs, np.unique(labels), vectors.shape[1])
    known, position = np.unique(labels, return_inverse=True)
    members = [vectors[position == group] for group in range(len(known))]
    if method == "center":
        offsets = _means(members, vectors)
        return Debias(method, known, offsets, np.empty((len(offsets), 0, vectors.shape[1]), np.float32))
    directions = _principal_directions(members, vectors, components)
    return Debias(method, known, np.zeros((len(known) + 1, vectors.shape[1]), np.float32), directions)


def check_labels(groups: Labels, count: int) -> NDArray[np.str_]:
    """Return ``groups`` as an array of ``count`` strings; bytes are read as UTF-8.

    Raises:
        IndexingError: it is no array ``(count,)`` of strings or bytes.
    """
    if not isinstance(groups, np.ndarray) or groups.dtype.kind not in "US":
        found = groups.dtype if isinstance(groups, np.ndarray) else type(groups).__name__
        raise IndexingError(f"groups are {found}; expected a numpy array of strings")
    if groups.shape != (count,):
        raise IndexingError(f"groups have shape {groups.shape}; expected ({count},), one label per vector")
    labels: NDArray[np.str_] = groups if groups.dtype.kind == "U" else np.char.decode(groups, "utf-8")
    return labels


def _check_request(method: str, vectors: Vectors, pairs: ParallelPairs | None, components: int) -> None:
    if method not in METHODS:
        raise IndexingError(f"debiasing method is {method!r}; expected one of {', '.join(METHODS)}")
    if (method == "shift") != (pairs is not None):
        need = "needs parallel pairs" if method == "shift" else "takes no parallel pairs"
        raise IndexingError(f"debiasing method {method!r} {need}")
    if method != "shift" and not len(vectors):
        raise IndexingError(f"debiasing method {method!r} has no vectors to learn from")
    if not 1 <= components < vectors.shape[1]:
        raise IndexingError(f"components is {components}; expected 1 to {vectors.shape[1] - 1}")


def _means(members: list[Vectors], vectors: Vectors) -> Vectors:
    """The mean of each group, drawn towards the mean of all, and last that mean itself."""
    pooled = vectors.mean(axis=0, dtype=np.float64)
    sums = [rows.sum(axis=0, dtype=np.float64) + PRIOR_ROWS * pooled for rows in members]
    means = [total / (len(rows) + PRIOR_ROWS) for total, rows in zip(sums, members, strict=True)]
    return np.array([*means, pooled], dtype=np.float32)


def _principal_directions(members: list[Vectors], vectors: Vectors, components: int) -> Vectors:
    """The first right singular vectors of each group and ``PRIOR_ROWS`` typical rows, and last of all."""
    pooled = (vectors.T @ vectors) / len(vectors)
    moments = [*(rows.T @ rows + PRIOR_ROWS * pooled for rows in members), pooled]
    largest = [np.linalg.eigh(moment)[1][:, : -components - 1 : -1].T for moment in moments]
    return np.ascontiguousarray(largest, dtype=np.float32)


def _fit_shift(pairs: ParallelPairs, documents: NDArray[np.str_], dimension: int) -> Debias:
    vectors = check_vectors(pairs.vectors, dimension=dimension, name="pairs.vectors")
    pivots = check_vectors(pairs.pivot_vectors, dimension=dimension, name="pairs.pivot_vectors")
    labels = check_labels(pairs.groups, len(vectors))
    if len(pivots) != len(vectors):
        raise IndexingError(f"pairs have {len(vectors)} vectors, but {len(pivots)} pivot vectors")
    differences = vectors - pivots
    known = np.setdiff1d(labels, [pairs.pivot])
    offsets = np.zeros((len(known) + 1, dimension), np.float32)
    for group, label in enumerate(known):
        rows = differences[labels == label]
        offsets[group] = rows.sum(axis=0, dtype=np.float64) / (len(rows) + PRIOR_ROWS)
    unchanged = tuple(np.setdiff1d(documents, [*known, pairs.pivot]).tolist())
    return Debias("shift", known, offsets, np.empty((len(offsets), 0, dimension), np.float32), unchanged)
