"""Figures of several rounds as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are figures."""
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return median and range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def ratios(above: Sequence[float], below: Sequence[float]) -> str:
    """Return median and range of the ratios of each round, two digits."""
    return spread([a / b for a, b in zip(above, below, strict=True)], ".2f")


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with one digit."""
    return f"{1000 * seconds:,.1f}"


def in_turns(peers: Mapping[str, Value], rounds: int) -> Iterator[tuple[str, Value]]:
    """Yield every peer once a round, in opposite order every other round, so that drift hits all alike."""
    for turn in range(rounds):
        yield from list(peers.items())[:: 1 if turn % 2 == 0 else -1]
