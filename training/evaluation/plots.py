"""Plots as SVG text, for a page that needs nothing from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from training.evaluation.resampling import Interval

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#97266d", "#6b46c1", "#744210", "#285e61", "#9b2c2c")
_ROW, _LEFT, _WIDTH, _TOP, _RIGHT = 16, 150, 560, 26, 20


@dataclass(frozen=True)
class Point:
    """A figure with its interval, if it has one."""

    figure: float
    interval: Interval | None


def dot_plot(rows: dict[str, list[Point]], models: list[str], title: str) -> str:
    """Return an SVG with a line per row, and on it a dot and an interval per model."""
    low, high = _limits(rows)
    marks = ticks(low, high)
    low, high = min(low, marks[0]), max(high, marks[-1])
    height = _TOP + _ROW * len(rows) + 8

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (value - low) / (high - low)

    parts = [_grid(x(tick), tick, height) for tick in marks]
    for number, (name, points) in enumerate(rows.items()):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for model, point in enumerate(points):
            offset = (model - (len(points) - 1) / 2) * min(4, 10 / len(points))
            parts.append(
                _dot(x, y + offset, point, COLOURS[model % len(COLOURS)], f"{models[model]}, {name}")
            )
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" width="{_LEFT + _WIDTH + _RIGHT}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _limits(rows: dict[str, list[Point]]) -> tuple[float, float]:
    values = [p.figure for points in rows.values() for p in points]
    values += [end for points in rows.values() for p in points if p.interval for end in p.interval]
    known = [value for value in values if np.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (min(low, 0.0), high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers that span the limits, of which ``high`` is the larger one."""
    rough = (high - low) / 5
    power = 10 ** np.floor(np.log10(rough))
    step = next(float(power * factor) for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [float(tick) for tick in np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step]


def _grid(x: float, tick: float, height: int) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height}"/>'
        f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="middle">{tick:g}</text>'
    )


def _dot(x: object, y: float, point: Point, colour: str, name: str) -> str:
    assert callable(x)
    if not np.isfinite(point.figure):
        return ""
    bar, ends = "", ""
    if point.interval is not None and np.isfinite(point.interval[0]):
        low, high = point.interval
        ends = f" ({low:.2f} to {high:.2f})"
        bar = f'<line stroke="{colour}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    title = f"<title>{escape(name)}: {point.figure:.2f}{ends}</title>"
    return f'<g>{title}{bar}<circle cx="{x(point.figure):.1f}" cy="{y:.1f}" r="3" fill="{colour}"/></g>'
