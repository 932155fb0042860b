"""What a kind of job is: the files and options that it takes, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.encoder import Encoder
from embedsvc.mining.progress import Report


@dataclass(frozen=True)
class Input:
    """Files that a kind takes under one name; ``many``: more than one."""

    name: str
    about: str
    many: bool = False


@dataclass(frozen=True)
class JobTask:
    """What the function of a kind is given; ``options`` is of the kind's class.

    The result is written to ``out``, JSON lines. Killed at any moment and called again with the same
    ``work`` folder, the function goes on and writes the same bytes.
    """

    inputs: Mapping[str, tuple[Path, ...]]
    options: Any
    work: Path
    out: Path
    open_encoder: Callable[[], Encoder]
    report: Report
    threads: int

    def file(self, name: str) -> Path | None:
        """Return the one file of an input, None without it."""
        return next(iter(self.inputs.get(name, ())), None)


@dataclass(frozen=True)
class JobKind:
    """A kind of job. ``options`` is a dataclass; ``run`` returns what is told of the result.

    Of each group of inputs in ``needs`` one must be there.
    """

    about: str
    inputs: tuple[Input, ...]
    needs: tuple[tuple[str, ...], ...]
    options: type
    run: Callable[[JobTask], dict[str, Any]]
    best_first: bool = True  # the lines of the result; others are in the order of the input
    formats: tuple[str, ...] = ("jsonl",)  # of the result; others than jsonl if its lines are pairs

    def input(self, name: str) -> Input | None:
        return next((known for known in self.inputs if known.name == name), None)
