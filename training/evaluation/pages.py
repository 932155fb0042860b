"""One run over several tasks and models, as one JSON file, one of Markdown and one page of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from embedsvc.textfiles import atomic_write, write_json
from training.evaluation.comparison import Comparison
from training.evaluation.plots import COLOURS, Point, dot_plot
from training.evaluation.report import Report, group_title, interval_text
from training.evaluation.resampling import RESAMPLES

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 0.6rem 0; }
th, td { padding: 0.15rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; } svg text { font: 11px sans-serif; fill: currentColor; }
.grid { stroke: #8884; } .key { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; }
:root { color-scheme: light dark; }
"""
Table = list[list[str]]


def page(title: str, body: str) -> str:
    """Return a whole page of HTML, which loads nothing."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def key(names: Iterable[str]) -> str:
    """Return the names, each behind a dot of its colour."""
    return " &nbsp; ".join(
        f'<span class="key" style="background:{COLOURS[number % len(COLOURS)]}"></span> {escape(name)}'
        for number, name in enumerate(names)
    )


@dataclass(frozen=True)
class Run:
    """All reports of a run, by task, each with one report per model in the same order, and comparisons."""

    reports: dict[str, list[Report]]
    comparisons: list[Comparison]

    def write(self, folder: Path) -> list[Path]:
        """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``; return the paths."""
        paths = [folder / f"report.{kind}" for kind in ("json", "md", "html")]
        reports = {task: [report.as_json() for report in of] for task, of in self.reports.items()}
        write_json(paths[0], {"reports": reports, "comparisons": [c.as_json() for c in self.comparisons]})
        for path, text in zip(paths[1:], (self.markdown(), self.html()), strict=True):
            with atomic_write(path) as file:
                file.write(text.encode())
        return paths

    def markdown(self) -> str:
        """Return the figures of all tasks and the comparisons; languages are in each task's own file."""
        parts = ["# Evaluation\n", _markdown(self._summary())]
        if self.comparisons:
            parts += ["## Differences\n", _DIFFERENCES, _markdown(self._differences())]
        for task, reports in self.reports.items():
            parts += [f"## {task}\n", reports[0].protocol + "\n", _markdown(_means(reports))]
        return "\n".join(parts)

    def html(self) -> str:
        """Return one page with tables, a plot per task, and all languages; it loads nothing."""
        models = [report.model for report in next(iter(self.reports.values()))]
        parts = [f"<h1>Evaluation</h1><p>{key(models)}</p>", _html(self._summary())]
        if self.comparisons:
            parts += ["<h2>Differences</h2>", f"<p>{_DIFFERENCES}</p>", _html(self._differences())]
        parts += [_section(task, reports) for task, reports in self.reports.items()]
        return page("Evaluation", "".join(parts))

    def _summary(self) -> Table:
        table = [["task", "figure", *(report.model for report in next(iter(self.reports.values())))]]
        for task, reports in self.reports.items():
            main = reports[0].main
            sign = "↓" if reports[0].better[main] == "lower" else "↑"
            table.append([task, f"{main} {sign}", *(_with_interval(report, main) for report in reports)])
        return table

    def _differences(self) -> Table:
        table = [["task", "figure", "models", "difference", "95 %", "p", "rows better / worse"]]
        for c in self.comparisons:
            better, worse = c.rows_won()
            rows = f"{better} / {worse} of {len(c.rows)}" if c.rows else ""
            names = f"{c.first} − {c.second}"
            for name, d in {"": c.mean, **{f", {group}": d for group, d in c.groups.items()}}.items():
                span = interval_text((d.low, d.high))
                cells = [c.task, c.column + name, names, f"{d.value:+.2f}", span, _p_text(d.p)]
                table.append([*cells, "" if name else rows])
        return table


_DIFFERENCES = (
    "Of the mean over languages, with paired bootstrap intervals and two-sided permutation tests on the "
    "same items; rows: in how many languages p < 0.05, not corrected for their number.\n"
)


def _p_text(p: float) -> str:
    """Return p to three digits; the least that so many permutations can show is an upper bound."""
    return f"{p:.3f}" if p > _LEAST_P else f"≤ {_LEAST_P:.3f}"


def _with_interval(report: Report, column: str) -> str:
    figure, found = report.mean[column], report.mean_intervals.get(column)
    return report.cell(column, figure) + (f" ({interval_text(found)})" if found else "")


def _means(reports: Sequence[Report]) -> Table:
    """Return a line per model and group of languages, a column per figure."""
    table = [["model", "languages", *reports[0].columns]]
    for report in reports:
        cells = (_with_interval(report, column) for column in report.columns)
        table.append([report.model, f"all {len(report.rows)}", *cells])
        for name, group in report.groups.items():
            means = (report.cell(column, group.mean[column]) for column in report.columns)
            table.append([report.model, group_title(name, group), *means])
    return table


def _languages(report: Report) -> Table:
    table = [["language", *report.columns, f"95 % of {report.main}"]]
    for language, figures in sorted(report.rows.items()):
        cells = (report.cell(column, figures[column]) for column in report.columns)
        table.append([language, *cells, interval_text(report.intervals[language].get(report.main))])
    return table


def _section(task: str, reports: Sequence[Report]) -> str:
    main, models = reports[0].main, [report.model for report in reports]
    sign = 1 if reports[0].better[main] == "lower" else -1
    rows = sorted(
        reports[0].rows, key=lambda row: np.nan_to_num(sign * reports[0].rows[row][main], nan=np.inf)
    )
    points = {
        row: [Point(report.rows[row][main], report.intervals[row].get(main)) for report in reports]
        for row in rows
    }
    opened = " open" if len(rows) <= _FEW else ""
    plot = dot_plot(points, models, f"{task}: {main}")
    tables = "".join(
        f"<details><summary>all figures of {escape(report.model)}</summary>"
        f"{_html(_languages(report))}</details>"
        for report in reports
    )
    return (
        f"<h2>{escape(task)}</h2><p>{escape(reports[0].protocol)}</p>{_html(_means(reports))}"
        f"<details{opened}><summary>{escape(main)} by language, with 95 % intervals</summary>"
        f"<p>{key(models)}</p>{plot}</details>{tables}"
    )


_LEAST_P = 1 / (RESAMPLES + 1) + 1e-9
_FEW = 40  # rows of a plot that is shown at once


def _markdown(table: Table) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in table]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _html(table: Table) -> str:
    head, *body = table
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{rows}</table>"
