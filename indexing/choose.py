"""Which kind of index: from the number of vectors, their width, the wanted recall and the memory there is.

The limits were measured (384 dimensions, clustered vectors, one thread); `build_calibrated` finds the search
parameters afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from indexing.errors import IndexingError
from indexing.kinds import Flat, Hnsw, IvfPq, Kind, RaBitQ

FLAT_LIMIT = 20_000
"""Vectors up to which reading all of them takes about a millisecond."""

GRAPH_LIMIT = 3_000_000
"""Vectors beyond which building a graph takes hours, and inverted lists are the better bargain."""

_ORDER_BYTES = 4
"""Per vector, for the row of each of FAISS's numbers in a calibrated index."""

_CAREFUL = 0.95
"""Wanted recall above which building and coding take more care."""

_WHOLE = 0.98
"""Wanted recall that 8-bit values alone do not reach for certain (measured: 0.98 to 0.99 of the true ten)."""

_MOST_LISTS = 65_536


@dataclass(frozen=True)
class Choice:
    """A kind of index, a sentence that says why, and the bytes it takes per vector."""

    kind: Kind
    reason: str
    bytes_per_vector: float


@dataclass(frozen=True)
class _Option:
    kind: Kind
    because: str
    bytes_per_vector: float


def choose(n: int, dim: int, *, recall: float = 0.95, memory_bytes: int | None = None) -> Choice:
    """Return the kind of index for ``n`` vectors of ``dim`` that is to find ``recall`` of the neighbours.

    ``memory_bytes`` is what the whole index may take; None is no limit. The first that fits is taken of:
    exact while that is quick, a graph, refined 4-bit codes, and ever shorter RaBitQ codes, which reach a
    high recall only among more candidates than are wanted. A ``recall`` of 1 asks for an exact search.

    Raises:
        IndexingError: a value is out of range, or nothing fits; the message names the least memory.
    """
    _check(n, dim, recall, memory_bytes)
    options = [
        _Option(kind, because, kind.bytes_per_vector(dim, n) + (_ORDER_BYTES if kind != Flat() else 0))
        for kind, because in _preferred(n, recall)
    ]
    for place, option in enumerate(options):
        if memory_bytes is None or option.bytes_per_vector * n <= memory_bytes:
            return Choice(
                option.kind, _reason(n, options[: place + 1], memory_bytes), option.bytes_per_vector
            )
    least = min(options, key=lambda option: option.bytes_per_vector)
    raise IndexingError(
        f"memory_bytes is {memory_bytes}; {n} vectors of dimension {dim} at recall {recall} take at least "
        f"{math.ceil(least.bytes_per_vector * n)} bytes ({least.kind.name})"
    )


def _preferred(n: int, recall: float) -> list[tuple[Kind, str]]:
    """Kinds for ``n`` vectors and why, the preferred first."""
    if recall == 1:
        return [(Flat(), "recall 1 asks for an exact search")]
    kinds: list[tuple[Kind, str]] = []
    if n <= FLAT_LIMIT:
        kinds.append((Flat(), f"an exact search of up to {FLAT_LIMIT:,} vectors takes about a millisecond"))
    if n <= GRAPH_LIMIT:
        construction = 100 if recall > _CAREFUL else 40
        if recall > _WHOLE:
            because = f"8-bit values alone do not reach a recall of {recall:g} for certain"
            kinds.append((Hnsw(ef_construction=construction), because))
        because = f"a graph over 8-bit values is fastest up to {GRAPH_LIMIT:,} vectors"
        kinds.append((Hnsw(ef_construction=construction, storage="sq8"), because))
    lists = _lists(n)
    because = f"4-bit codes in {lists:,} lists find candidates, which 8-bit values refine"
    kinds.append((IvfPq(nlist=lists), because))
    for bits in (8, 4, 2, 1) if recall > _CAREFUL else (4, 2, 1):
        because = f"RaBitQ codes of {bits} bits per value need no vectors; rescore their candidates"
        kinds.append((RaBitQ(bits=bits, nlist=lists), because))
    return kinds


def _lists(n: int) -> int:
    """Four times the root of ``n``, as a power of two: what FAISS's guidelines begin with."""
    return min(_MOST_LISTS, 1 << round(math.log2(max(1.0, 4 * math.sqrt(n)))))


def _reason(n: int, options: list[_Option], memory_bytes: int | None) -> str:
    """Say why the last of ``options`` was taken, and what the ones before it would have needed."""
    *refused, chosen = options
    size = f"{chosen.bytes_per_vector:.0f} bytes per vector, {chosen.bytes_per_vector * n / 2**20:.1f} MiB"
    sentence = f"{chosen.kind.name} for {n:,} vectors: {chosen.because} ({size})"
    if not refused or memory_bytes is None:
        return sentence
    needs = ", ".join(f"{option.kind.name} {option.bytes_per_vector * n / 2**20:.1f}" for option in refused)
    return f"{sentence}; the limit of {memory_bytes / 2**20:.1f} MiB rules out {needs}"


def _check(n: int, dim: int, recall: float, memory_bytes: int | None) -> None:
    for name, value, least in (("n", n, 0), ("dim", dim, 1), ("memory_bytes", memory_bytes, 0)):
        if value is not None and value < least:
            raise IndexingError(f"{name} is {value}; expected at least {least}")
    if not 0 < recall <= 1:
        raise IndexingError(f"recall is {recall}; expected more than 0, at most 1")
