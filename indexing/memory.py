"""One memory limit for many graphs: the same number of bytes per vector for all of them, as far as it goes.

The limit counts what the graphs take: their links or lists, the codes of their vectors, and the order of
their rows. The exact vectors, which score what a graph finds, are a memory-mapped file that the system
reads as needed and may drop again; they do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from indexing.choose import Choice, choose
from indexing.errors import IndexingError
from indexing.kinds import Flat

_MARGIN = 1.02, 2, 1024
"""The bytes of a kind are an estimate. It holds to within two per cent and two bytes per vector, and
leaves out the headers of files; a limit is kept in any case."""


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
            return chosen
    raise IndexingError(
        f"memory_bytes is {memory_bytes}; graphs of {', '.join(map(str, counts.values()))} vectors of "
        f"dimension {dim} at recall {recall} take at least {needed} bytes"
    )


def _options(count: int, dim: int, recall: float) -> list[Choice]:
    """What `choose` answers as the memory shrinks; a second exact copy only where nothing else is smaller."""
    choices = [choose(count, dim, recall=recall)]
    try:
        while True:
            less = math.ceil(choices[-1].bytes_per_vector * count) - 1
            choices.append(choose(count, dim, recall=recall, memory_bytes=less))
    except IndexingError:
        graphs = [choice for choice in choices if choice.kind != Flat()] or choices
    return [_explained(choice, graphs[:place]) for place, choice in enumerate(graphs)]


def _explained(choice: Choice, refused: list[Choice]) -> Choice:
    """The choice with its reason, in which the limit of all graphs rules out others, not that of one."""
    reason = choice.reason.partition("; the limit of ")[0]
    if refused:
        sizes = ", ".join(f"{other.kind.name} {other.bytes_per_vector:.0f}" for other in refused)
        reason += f"; the memory of all graphs rules out {sizes} bytes per vector"
    return replace(choice, reason=reason)


def _within(choices: list[Choice], limit: float) -> Choice:
    return next((choice for choice in choices if choice.bytes_per_vector <= limit), choices[-1])


def _bytes(chosen: Mapping[str, Choice], counts: Mapping[str, int]) -> int:
    share, per_vector, per_graph = _MARGIN
    needed = (
        (share * choice.bytes_per_vector + per_vector) * counts[name] + per_graph
        for name, choice in chosen.items()
    )
    return math.ceil(sum(needed))
