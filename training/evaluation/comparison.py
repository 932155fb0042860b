"""Two models on the same items: how large the difference is, and whether chance would make it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from training.evaluation.report import Report, json_value
from training.evaluation.resampling import Difference, paired_difference

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """The differences of one figure between two models, first minus second.

    ``mean`` is over all languages, ``groups`` and ``rows`` over some and of each. ``p`` values are not
    corrected for there being many languages: of 100 rows without a difference five fall below 0.05.
    """

    task: str
    column: str
    first: str
    second: str
    lower_is_better: bool
    mean: Difference
    groups: dict[str, Difference]
    rows: dict[str, Difference]

    def rows_won(self) -> tuple[int, int]:
        """Return in how many rows the first model is better, and worse, with p < 0.05."""
        sign = -1 if self.lower_is_better else 1
        values = [sign * row.value for row in self.rows.values() if row.p < SIGNIFICANT]
        return sum(value > 0 for value in values), sum(value < 0 for value in values)

    def as_json(self) -> Any:
        """Return all fields as values of JSON."""
        return json_value(self)


def compare(reports: list[Report]) -> list[Comparison]:
    """Return the comparisons of all pairs among reports of one task by different models.

    The main figure is compared row by row too. Figures without items are left out.
    """
    return [
        _comparison(first, second, column)
        for first, second in combinations(reports, 2)
        for column in first.columns
        if all(column in items for items in first.items.values())
    ]


def _comparison(first: Report, second: Report, column: str) -> Comparison:
    def difference(rows: list[str]) -> Difference:
        ours, theirs = ({row: of.items[row][column] for row in rows} for of in (first, second))
        return paired_difference(ours, theirs, aligned=first.aligned)

    return Comparison(
        first.task,
        column,
        first.model,
        second.model,
        first.better[column] == "lower",
        difference(list(first.rows)),
        {name: difference(group.rows) for name, group in first.groups.items()},
        {row: difference([row]) for row in first.rows} if column == first.main else {},
    )
