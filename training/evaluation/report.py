"""What every evaluation returns: a row per language with intervals, means, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from embedsvc.encoder import Encoder
from embedsvc.textfiles import atomic_write, write_json
from training.evaluation.items import Items, Numbers, mean_known
from training.evaluation.resampling import Interval, interval, resampled

Figures = dict[str, float]
Intervals = dict[str, Interval]
Row = Mapping[str, Items | float]
Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Column:
    """A figure of a task: its name, which way is better, and whether it counts things."""

    name: str
    better: Better = "higher"
    counts: bool = False


PAIRS = Column("pairs", "none", counts=True)


@dataclass(frozen=True)
class Task:
    """What a task is called, how it measures, and its columns; ``main`` is the one to compare models by.

    ``aligned``: the items of all rows are the same lines, in other languages (see `resampling`).
    """

    name: str
    protocol: str
    columns: tuple[Column, ...]
    main: str
    aligned: bool = False


@dataclass(frozen=True)
class Group:
    """The mean over some languages, with the number that the group's definition has."""

    rows: list[str]
    defined: int
    mean: Figures
    intervals: Intervals

    @property
    def complete(self) -> bool:
        return len(self.rows) == self.defined


@dataclass(frozen=True)
class Report:
    """Figures, most in percent. ``rows`` maps a language to its figures, ``mean`` is over languages.

    ``intervals`` and ``mean_intervals`` are 95 % bootstrap intervals of the figures that have items.
    """

    task: str
    protocol: str
    model: str
    fingerprint: str
    columns: tuple[str, ...]
    rows: dict[str, Figures]
    mean: Figures
    main: str
    better: dict[str, Better]
    counts: tuple[str, ...]
    intervals: dict[str, Intervals]
    mean_intervals: Intervals
    groups: dict[str, Group]
    aligned: bool
    items: Mapping[str, Mapping[str, Items]] = field(repr=False)

    def markdown(self) -> str:
        """Return a table: the mean first, then the groups, then a line per language."""
        head = f"# {self.task}: {self.model}\n\n{self.protocol}\n\nModel fingerprint `{self.fingerprint}`.\n"
        lines = [
            "| language | " + " | ".join(self.columns) + f" | 95 % of {self.main} |",
            "|---|" + "---:|" * (len(self.columns) + 1),
        ]
        lines.append(self._line(f"**mean of {len(self.rows)}**", self.mean, self.mean_intervals))
        for name, group in self.groups.items():
            lines.append(self._line(f"**{group_title(name, group)}**", group.mean, group.intervals))
        for language, figures in sorted(self.rows.items()):
            lines.append(self._line(language, figures, self.intervals[language]))
        return head + "\n" + "\n".join(lines) + "\n"

    def _line(self, name: str, figures: Figures, intervals: Intervals) -> str:
        cells = [self.cell(column, figures[column]) for column in self.columns]
        cells.append(interval_text(intervals.get(self.main)))
        return f"| {name} | " + " | ".join(cells) + " |"

    def cell(self, column: str, figure: float) -> str:
        """Return a figure as it is shown: counts without decimals, a dash for what is not known."""
        if np.isnan(figure):
            return "–"
        return f"{figure:.0f}" if column in self.counts else f"{figure:.2f}"

    def write(self, folder: Path) -> list[Path]:
        """Write ``<task>.<model>.json`` and ``.md`` into ``folder``, "-" for ":"; return both paths."""
        stem = folder / f"{self.task.replace(':', '-')}.{self.model}"
        paths = [stem.with_name(stem.name + suffix) for suffix in (".json", ".md")]
        write_json(paths[0], self.as_json())
        with atomic_write(paths[1]) as file:
            file.write(self.markdown().encode())
        return paths

    def as_json(self) -> dict[str, object]:
        """Return all but the items, as values of JSON: what is not known is null."""
        return {f.name: json_value(getattr(self, f.name)) for f in fields(self) if f.name != "items"}


def json_value(value: object) -> object:
    """Return dataclasses as objects, tuples as lists and NaN as null: the values that JSON has."""
    if isinstance(value, float):
        return None if np.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: json_value(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def interval_text(found: Interval | None) -> str:
    """Return "12.3 to 14.5", or a dash."""
    return "–" if found is None or np.isnan(found[0]) else f"{found[0]:.2f} to {found[1]:.2f}"


def group_title(name: str, group: Group) -> str:
    """Return the group's name, with how many of its languages there are if some are missing."""
    return name if group.complete else f"{name}, {len(group.rows)} of {group.defined}"


def make_report(
    task: Task,
    encoder: Encoder,
    rows: Mapping[str, Row],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Average every column over the languages, each counting once, and bootstrap what has items.

    Of ``groups`` those languages are averaged that there are; a group without any is left out.
    """
    items = {row: {n: v for n, v in of.items() if isinstance(v, Items)} for row, of in rows.items()}
    figures = {row: {name: _figure(of[name]) for name in _names(task)} for row, of in rows.items()}
    resamples = resampled(items, aligned=task.aligned)
    mean, mean_intervals = _mean(task, list(rows), figures, resamples)
    found: dict[str, Group] = {}
    for name, members in (groups or {}).items():
        if present := [row for row in rows if row in set(members)]:
            found[name] = Group(present, len(members), *_mean(task, present, figures, resamples))
    return Report(
        task.name,
        task.protocol,
        encoder.name,
        encoder.fingerprint,
        _names(task),
        figures,
        mean,
        task.main,
        {column.name: column.better for column in task.columns},
        tuple(column.name for column in task.columns if column.counts),
        {row: {name: interval(b) for name, b in of.items()} for row, of in resamples.items()},
        mean_intervals,
        found,
        task.aligned,
        items,
    )


def _names(task: Task) -> tuple[str, ...]:
    return tuple(column.name for column in task.columns)


def _figure(value: Items | float) -> float:
    return value.figure() if isinstance(value, Items) else float(value)


def _mean(
    task: Task,
    rows: list[str],
    figures: Mapping[str, Figures],
    resamples: Mapping[str, Mapping[str, Numbers]],
) -> tuple[Figures, Intervals]:
    means = {name: float(mean_known(np.array([figures[row][name] for row in rows]))) for name in _names(task)}
    intervals = {}
    for name in _names(task):
        if all(name in resamples[row] for row in rows):
            intervals[name] = interval(mean_known([resamples[row][name] for row in rows]))
    return means, intervals
