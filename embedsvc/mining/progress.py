"""How long work says how far it is, to whoever shows it: a terminal, a file, an HTTP client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """``done`` of ``total`` units of one stage; total 0 where nobody knows it yet."""

    stage: str
    done: int
    total: int
    unit: str = "sentences"


Report = Callable[[Step], None]
"""Called often; it may raise to end the work (a cancelled job)."""


def ignore(_: Step) -> None:
    """Show nothing."""
