"""The figures of a run as one page: losses, held-out accuracy and learning rate over the steps."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from embedsvc.textfiles import atomic_write
from training.evaluation.pages import key, page
from training.evaluation.plots import COLOURS, ticks

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 220, 70, 24, 10, 14
_MOST_POINTS = 500  # of a curve; a pixel or so each
_PLOTS = (
    ("Loss", "loss"),
    ("Held-out ranking accuracy", "held_out"),
    ("Learning rate", "learning_rate"),
)
Curve = list[tuple[int, float]]


def write_run_page(run: Path) -> Path:
    """Write ``metrics.html`` beside ``metrics.jsonl`` in ``run``, and return its path."""
    curves = _curves(run / "metrics.jsonl")
    parts = [f"<h1>{escape(run.resolve().parent.name)}</h1>"]
    for title, prefix in _PLOTS:
        shown = {name: curve for name, curve in curves.items() if name.startswith(prefix)}
        if shown:
            parts.append(f"<h2>{title}</h2><p>{key(shown)}</p>{line_plot(shown, title)}")
    path = run / "metrics.html"
    with atomic_write(path) as file:
        file.write(page(run.resolve().parent.name, "".join(parts)).encode())
    return path


def _curves(path: Path) -> dict[str, Curve]:
    """The values of every name by step. What a killed run had logged is replaced by what came after it."""
    values: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        entry = json.loads(line)
        for name, value in entry.items():
            if name not in ("step", "time"):
                values[name][entry["step"]] = value
    return {name: sorted(by_step.items()) for name, by_step in values.items()}


def line_plot(curves: Mapping[str, Curve], title: str) -> str:
    """Return an SVG with a line per curve of (step, value); what is not finite is left out."""
    known = {name: [p for p in curve if math.isfinite(p[1])] for name, curve in curves.items()}
    points = [point for curve in known.values() for point in curve]
    steps = _spread([step for step, _ in points], whole=True)
    marks = _spread([value for _, value in points], whole=False)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - steps[0]) / (steps[-1] - steps[0])

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - marks[0]) / (marks[-1] - marks[0])

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>'
        for mark in marks
    ]
    parts += [
        f'<text x="{x(step):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{step:g}</text>' for step in steps
    ]
    for number, (name, curve) in enumerate(known.items()):
        drawn = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _thinned(curve))
        colour = COLOURS[number % len(COLOURS)]
        last = f", last {curve[-1][1]:.4g} at step {curve[-1][0]}" if curve else ""
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{drawn}">'
            f"<title>{escape(name)}{last}</title></polyline>"
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _spread(values: Sequence[float], *, whole: bool) -> list[float]:
    """Round numbers that span the values, at least two of them."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - (0 if whole else 0.5), high + (1 if whole else 0.5)
    return ticks(low, high)


def _thinned(curve: Curve) -> Curve:
    """Every n-th point, and the last."""
    step = -(-len(curve) // _MOST_POINTS) or 1
    return curve[::step] if len(curve) % step == 1 or step == 1 else [*curve[::step], *curve[-1:]]
