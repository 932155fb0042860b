"""What was measured, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Report = Mapping[str, Any]
ENGLISH_STS = "en-en"


@dataclass(frozen=True)
class Rounds:
    """The short runs of one student: per round, seconds of the processor per step of each side."""

    student: str
    batch: int
    ours: Sequence[Mapping[str, float]]
    stock: Sequence[Mapping[str, float]]

    def lines(self) -> Iterator[str]:
        prepared = [run["step_s"] + self.batch * run["tokenize_s"] for run in self.ours]
        bare = [run["step_s"] for run in self.ours]
        stock = [run["step_s"] for run in self.stock]
        ratio = median(b / a for a, b in zip(prepared, stock, strict=True))
        ratios = [b / a for a, b in zip(prepared, stock, strict=True)]
        yield self._line("sentence-transformers", stock, self.stock, "1")
        yield self._line(
            "ours", bare, self.ours, f"{median(b / a for a, b in zip(bare, stock, strict=True)):.2f}"
        )
        span = f" ({min(ratios):.2f} to {max(ratios):.2f})"
        yield self._line("ours, with tokenizing", prepared, self.ours, f"**{ratio:.2f}**{span}")

    def _line(
        self, side: str, steps: Sequence[float], runs: Sequence[Mapping[str, float]], ratio: str
    ) -> str:
        step = median(steps)
        peak = median(run["peak_mb"] for run in runs)
        cells = (self.student, side, f"{1000 * step:.0f}", f"{self.batch / step:,.0f}", ratio, f"{peak:,.0f}")
        return _cells(*cells)


def speed_table(all_rounds: Sequence[Rounds]) -> Iterator[str]:
    yield "| student | side | ms a step | pairs per cpu s | ratio (range) | peak MB |"
    yield "|---|---|---:|---:|---:|---:|"
    for rounds in all_rounds:
        yield from rounds.lines()


@dataclass(frozen=True)
class Judged:
    """What `train.judged` wrote: reports by task and model, and differences of main figures."""

    reports: Mapping[str, Mapping[str, Report]]
    differences: Sequence[Report]

    @classmethod
    def read(cls, folder: Path) -> Judged:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        by_model = {task: {one["model"]: one for one in of} for task, of in report["reports"].items()}
        return cls(by_model, json.loads((folder / "differences.json").read_text(encoding="utf-8")))

    def has(self, model: str) -> bool:
        return all(model in of for of in self.reports.values())

    def figure(self, task: str, model: str, group: str | None = None) -> str:
        """Return "12.34 (11.90 to 12.80)" of the task's main figure, a dash where it was not measured."""
        found = self.reports.get(task, {}).get(model)
        if found is None:
            return "–"
        if group is not None:
            found = found["groups"].get(group)
            return "–" if found is None else f"{found['mean'][self._main(task)]:.2f}"
        low, high = found["mean_intervals"][found["main"]]
        return f"{found['mean'][found['main']]:.2f} ({low:.2f} to {high:.2f})"

    def row(self, task: str, model: str, row: str) -> tuple[float, float, float] | None:
        """Return the main figure of one row and its interval."""
        found = self.reports.get(task, {}).get(model)
        if found is None or row not in found["rows"]:
            return None
        low, high = found["intervals"][row][found["main"]]
        return found["rows"][row][found["main"]], low, high

    def difference(self, task: str, first: str, second: str) -> str:
        """Return "+1.23 (+0.90 to +1.50), p 0.001" of the first model over the second."""
        for one in self.differences:
            if (one["task"], one["first"], one["second"]) == (task, first, second):
                return f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}), p {one['p']:.3f}"
        return "–"

    def _main(self, task: str) -> str:
        return str(next(iter(self.reports[task].values()))["main"])

    def best(self, models: Sequence[str]) -> str:
        """Return the model with the best first task; what is chosen so flatters the stock side."""
        task, of = next(iter(self.reports.items()))
        sign = -1 if next(iter(of.values()))["better"][self._main(task)] == "lower" else 1
        return max(models, key=lambda model: sign * of[model]["mean"][self._main(task)])


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def quality_table(judged: Judged, results: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield _cells(
        *("model", "Tatoeba-112 (95 %)", "XTREME-36", "FLORES xsim error (95 %)"),
        *("STS all (95 %)", "STS across languages", "STS English", "cpu min", "peak MB"),
    )
    yield "|---|" + "---:|" * 8
    for model, result in results.items():
        english = judged.row("sts", model, ENGLISH_STS)
        yield _cells(
            model,
            judged.figure("tatoeba", model),
            judged.figure("tatoeba", model, "XTREME-36"),
            judged.figure("xsim", model),
            judged.figure("sts", model),
            judged.figure("sts", model, "cross-lingual"),
            "–" if english is None else f"{english[0]:.2f}",
            f"{result['cpu_s'] / 60:.1f}",
            f"{result['peak_mb']:,.0f}",
        )


def difference_table(judged: Judged, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    tasks = list(judged.reports)
    yield _cells("ours", "less stock", *tasks)
    yield "|---|---|" + "---:|" * len(tasks)
    for ours, stock in pairs:
        yield _cells(ours, stock, *(judged.difference(task, ours, stock) for task in tasks))


def kept_line(judged: Judged, multilingual: str, english: str) -> str:
    """Return how much of the English student's English STS the multilingual one keeps."""
    ours, theirs = (judged.row("sts", model, ENGLISH_STS) for model in (multilingual, english))
    if ours is None or theirs is None:
        return ""
    figures = [
        f"{model} {figure:.2f} ({low:.2f} to {high:.2f})"
        for model, (figure, low, high) in ((multilingual, ours), (english, theirs))
    ]
    return f"English STS: {', '.join(figures)}: **{100 * ours[0] / theirs[0]:.1f} %** (wanted: 90 %)."
