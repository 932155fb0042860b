"""One memory limit for many graphs: the same number of bytes per vector for all of them, as far as it goes.

The limit counts what the graphs take: their links or lists, the codes of their vectors, and the order of
their rows. The exact vectors, which score what a graph finds, are a memory-mapped file that the system
reads as needed and may drop again; they do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from indexing.choose import Choice, choose
from indexing.errors import IndexingError
from indexing.kinds import Flat

_MARGIN = 1.02
"""The bytes of a kind are an estimate that holds to within two per cent; a limit is kept in any case."""


def choose_together(
    counts: Mapping[str, int], dim: int, *, recall: float = 0.95, memory_bytes: int | None = None
) -> dict[str, Choice]:
    """Return a kind for each graph of ``counts`` (vectors by name), all within ``memory_bytes`` together.

    Every graph gets the first choice of `choose` that takes at most so many bytes per vector, or the
    smallest there is; so many are as many as the limit allows. None is no limit.

    Raises:
        IndexingError: a value is out of range, or nothing fits; the message names the least memory.
    """
    options = {name: _options(count, dim, recall) for name, count in counts.items()}
    limits = sorted({choice.bytes_per_vector for choices in options.values() for choice in choices})
    for limit in [math.inf, *reversed(limits)]:
        chosen = {name: _within(choices, limit) for name, choices in options.items()}
        needed = _bytes(chosen, counts)
        if memory_bytes is None or needed <= memory_bytes:
            return {
                name: _explained(choice, counts[name], dim, recall, limit) for name, choice in chosen.items()
            }
    raise IndexingError(
        f"memory_bytes is {memory_bytes}; {len(counts)} graphs of {sum(counts.values())} vectors of dimension "
        f"{dim} at recall {recall} take at least {needed} bytes"
    )


def _options(count: int, dim: int, recall: float) -> list[Choice]:
    """What `choose` answers as the memory shrinks. Exact search is none of a graph's options."""
    choices = [choose(count, dim, recall=recall)]
    while True:
        less = math.ceil(choices[-1].bytes_per_vector * count) - 1
        try:
            choices.append(choose(count, dim, recall=recall, memory_bytes=less))
        except IndexingError:
            return [choice for choice in choices if choice.kind != Flat()]


def _within(choices: list[Choice], limit: float) -> Choice:
    return next((choice for choice in choices if choice.bytes_per_vector <= limit), choices[-1])


def _explained(choice: Choice, count: int, dim: int, recall: float, limit: float) -> Choice:
    """The same choice, its reason told with the memory that this graph may take."""
    if limit == math.inf:
        return choice
    may_take = math.ceil(max(limit, choice.bytes_per_vector) * count)
    explained = choose(count, dim, recall=recall, memory_bytes=may_take)
    return explained if explained.kind == choice.kind else choice


def _bytes(chosen: Mapping[str, Choice], counts: Mapping[str, int]) -> int:
    return math.ceil(_MARGIN * sum(choice.bytes_per_vector * counts[name] for name, choice in chosen.items()))
