"""The ways to find candidates between two sets, by name. Each says what it may have missed.

exact      float32, all dimensions
int8       bytes (see `int8_product`); ``factor`` times ``k`` candidates
truncated  the first ``dimensions`` only, for vectors trained for that (Kusupati et al., Matryoshka
           Representation Learning, NeurIPS 2022, https://arxiv.org/abs/2205.13147); ``factor`` as above
ivf        FAISS inverted lists of each side: ``nlist`` (0: by the number of vectors), ``nprobe`` of them read
gpu        float32 on the graphics cards, through FAISS
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.exact import SPARE
from indexing.first_pass import FloatProduct, Pass, Product, Progress, candidates
from indexing.int8_product import Rounded, int8_product, rounded, step
from indexing.onnx_matmul import byte_product_is_exact
from indexing.selection import BestLists

Vectors = NDArray[np.float32]

DEFAULTS: dict[str, dict[str, int]] = {
    "exact": {},
    "int8": {"factor": 3},
    "truncated": {"factor": 4, "dimensions": 128},
    "ivf": {"nlist": 0, "nprobe": 16},
    "gpu": {},
}
"""The methods and their parameters."""

TILES = {"exact": (1024, 2048), "int8": (512, 4096)}
"""Rows and columns of a tile: what is fastest where a core has a second-level cache of 1 to 2 MiB."""

_ROUNDING = 1e-5  # more than float32 adds to the error of a score of bytes
_LONGEST = 1.001  # the length of rows that `check_vectors` still takes for unit rows


@dataclass(frozen=True)
class Method:
    """A way by its name, with parameters where they are not the defaults."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise IndexingError for a name or a parameter that does not exist or is out of range."""
        if self.name not in DEFAULTS:
            raise IndexingError(f"method {self.name!r} is unknown; choose {', '.join(DEFAULTS)}")
        for name, value in self.parameters.items():
            least = 0 if name == "nlist" else 1
            if name not in DEFAULTS[self.name]:
                raise IndexingError(f"method {self.name} has no parameter {name!r}")
            if type(value) is not int or value < least:
                raise IndexingError(f"{name} is {value!r}; expected a whole number of at least {least}")

    def complete(self) -> dict[str, int]:
        """Return all parameters."""
        return DEFAULTS[self.name] | dict(self.parameters)

    def keep(self, k: int) -> int:
        """Return how many candidates a row has, of which the ``k`` best are kept."""
        return self.complete().get("factor", 1) * k if self.name in ("int8", "truncated") else k + SPARE


@dataclass(frozen=True)
class Work:
    """How many neighbours are wanted, found on how many threads, and who is told of it."""

    k: int
    threads: int = 1
    progress: Progress | None = None


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates ``rows`` ``(n, c)``, and ``ceilings`` ``(n,)`` that no score of another pair exceeds.

    A ceiling is infinite where nothing is known, and -infinity where nothing was missed.
    """

    rows: NDArray[np.int64]
    ceilings: NDArray[np.float32]


def find_candidates(x: Vectors, y: Vectors, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    """Return candidates among ``y`` ``(m, dim)`` for each of ``x`` ``(n, dim)``, and the reverse.

    Raises:
        IndexingError: the method does not work on this machine, or not on these vectors.
    """
    if method.name == "exact":
        return _by_product(FloatProduct(y, x), method, work)
    if method.name == "int8":
        return _by_bytes(x, y, method, work)
    if method.name == "truncated":
        return _by_first_dimensions(x, y, method, work)
    if method.name == "ivf":
        return _by_inverted_lists(x, y, method, work)
    return _on_gpus(x, y, method, work)


def _by_product(product: Product, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    y_lists, x_lists = _lists(product, method, work)
    return _all_of(x_lists.ranked()[1]), _all_of(y_lists.ranked()[1])


def _by_bytes(x: Vectors, y: Vectors, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    check_bytes()
    a, b = rounded(x), rounded(y)
    y_lists, x_lists = _lists(int8_product(b, a), method, work)
    return (
        Candidates(x_lists.ranked()[1], _ceilings(x_lists, a, b)),
        Candidates(y_lists.ranked()[1], _ceilings(y_lists, b, a)),
    )


def _by_first_dimensions(x: Vectors, y: Vectors, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    dimensions = method.complete()["dimensions"]
    if dimensions > x.shape[1]:
        raise IndexingError(f"dimensions is {dimensions}; the vectors have only {x.shape[1]}")
    a, b = _first_dimensions(x, dimensions), _first_dimensions(y, dimensions)
    if byte_product_is_exact():
        y_lists, x_lists = _lists(int8_product(rounded(b), rounded(a)), method, work)
    else:
        y_lists, x_lists = _lists(FloatProduct(b, a), method, work)
    return _some_of(x_lists.ranked()[1]), _some_of(y_lists.ranked()[1])


def _by_inverted_lists(x: Vectors, y: Vectors, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    values = method.complete()
    found = []
    for own, other in ((x, y), (y, x)):
        nlist = min(len(other), values["nlist"] or 4 * math.isqrt(len(other)))
        quantizer = faiss.IndexFlatIP(other.shape[1])
        index = faiss.IndexIVFFlat(quantizer, other.shape[1], nlist, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # fewer are no reason to warn
        index.train(other)
        index.add(other)
        index.nprobe = min(nlist, values["nprobe"])
        found.append(_some_of(index.search(own, min(method.keep(work.k), len(other)))[1]))
    return found[0], found[1]


def _on_gpus(x: Vectors, y: Vectors, method: Method, work: Work) -> tuple[Candidates, Candidates]:
    if not gpus():
        raise IndexingError("method gpu needs a CUDA device and faiss-gpu (pip install 'embedsvc[gpu]')")
    found = []
    for own, other in ((x, y), (y, x)):
        index = faiss.IndexFlatIP(other.shape[1])
        index.add(other)
        copy = faiss.index_cpu_to_all_gpus(index)
        found.append(_all_of(copy.search(own, min(method.keep(work.k), len(other)))[1]))
    return found[0], found[1]


def check_bytes() -> None:
    """Raise IndexingError where bytes are not multiplied rightly."""
    if not byte_product_is_exact():
        raise IndexingError("this processor adds up products of bytes in 16 bits; choose method exact")


def gpus() -> int:
    """Return how many graphics cards FAISS can use."""
    return int(faiss.get_num_gpus())


def _lists(product: Product, method: Method, work: Work) -> tuple[BestLists, BestLists]:
    """The candidates of the product's rows and of its columns."""
    tile = TILES["exact" if product.dtype == np.float32 else "int8"]
    options = Pass(method.keep(work.k), tile, work.threads)
    rows, columns = candidates(product, options, progress=work.progress)
    assert columns is not None
    return rows, columns


def _ceilings(lists: BestLists, own: Rounded, others: Rounded) -> NDArray[np.float32]:
    """The worst score of bytes in each list, and by how much it may be wrong for any pair.

    With x = x' + e and y = y' + f, x·y - x'·y' = e·y' + x·f, at most \\|e\\|\\|y'\\| + \\|x\\|\\|f\\|.
    """
    most = others.errors.max(initial=0)
    wrong = own.errors * (_LONGEST + most) + _LONGEST * most + _ROUNDING
    worst = lists.floors * np.float32(step(own.values.shape[1]) ** 2) + wrong
    missed = lists.keys.shape[1] < len(others.values)
    return worst.astype(np.float32) if missed else np.full(len(worst), -np.inf, np.float32)


def _first_dimensions(vectors: Vectors, dimensions: int) -> Vectors:
    """The rows cut and scaled to length 1; one of zeros stays so."""
    cut = vectors[:, :dimensions]
    lengths = np.sqrt(np.einsum("ij,ij->i", cut, cut))
    scaled: Vectors = cut / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    return scaled


def _all_of(rows: NDArray[np.int64]) -> Candidates:
    return Candidates(rows, np.full(len(rows), -np.inf, np.float32))


def _some_of(rows: NDArray[np.int64]) -> Candidates:
    return Candidates(rows, np.full(len(rows), np.inf, np.float32))
