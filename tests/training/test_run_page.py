"""The page of a run and its line of progress."""

import io
import json
import math
import re
from pathlib import Path

import pytest

from training import training_bar
from training.run_page import line_plot, write_run_page
from training.schedule_config import ScheduleConfig
from training.training_bar import TrainingBar


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in one.split()] for one in found]  # type: ignore[misc]


def test_points_stand_where_the_axes_say() -> None:
    svg = line_plot({"loss": [(0, 4.0), (50, 2.0), (100, 0.0)]}, "Loss")
    assert polylines(svg) == [[(70, 10), (348, 103), (626, 196)]]
    assert '<text x="64" y="107.0" text-anchor="end">2</text>' in svg
    assert '<text x="348.0" y="214" text-anchor="middle">' not in svg  # 0, 20, … 100
    assert '<text x="626.0" y="214" text-anchor="middle">100</text>' in svg


def test_values_that_are_no_numbers_and_single_points_do_no_harm() -> None:
    svg = line_plot({"a": [(1, math.nan), (2, 3.0)], "b": [(2, math.inf)]}, "x")
    assert [len(points) for points in polylines(svg)] == [1, 0]


def test_a_long_curve_is_thinned_and_keeps_its_last_point() -> None:
    curve = [(step, float(step % 7)) for step in range(1, 5003)]
    (points,) = polylines(line_plot({"a": curve}, "x"))
    assert len(points) < 520
    assert points[-1] == (533.5, 72.0)  # step 5002 of 0 … 6000, value 4 of 0 … 6


def test_what_a_killed_run_had_logged_is_replaced_on_the_page(tmp_path: Path) -> None:
    run = tmp_path / "<model>" / "run"
    run.mkdir(parents=True)
    entries = [
        {"step": 10, "loss": 3.0, "loss.koleo": 1.0, "learning_rate": 0.1},
        {"step": 20, "loss": 9.0, "loss.koleo": 1.0, "learning_rate": 0.1},
        {"step": 20, "held_out_accuracy": 0.5},
        {"step": 20, "loss": 2.0, "loss.koleo": 0.5, "learning_rate": 0.1},
    ]
    lines = [json.dumps({"time": 1.5, **entry}) + "\n" for entry in entries]
    (run / "metrics.jsonl").write_text("".join(lines))
    html = write_run_page(run).read_text(encoding="utf-8")
    assert "loss, last 2 at step 20" in html
    assert "held_out_accuracy, last 0.5 at step 20" in html
    assert html.count("<svg") == 3
    assert html.count("<polyline") == 4
    assert "<h1>&lt;model&gt;</h1>" in html
    assert "http" not in html


def test_the_bar_says_pairs_per_second_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = io.StringIO(), [0.0]
    made = training_bar.tqdm
    monkeypatch.setattr(
        training_bar, "tqdm", lambda **options: made(**options, file=screen, mininterval=0, ncols=100)
    )
    bar = TrainingBar(ScheduleConfig(steps=100, batch=50), 20, shown=True)
    bar._bar._time = lambda: now[0]
    bar._bar.start_t = bar._bar.last_print_t = 0.0
    for step in range(1, 11):
        now[0] = step * 0.5
        bar.update()
    bar.show(1.25)
    bar._bar.refresh()
    assert screen.getvalue().split("\r")[-1].endswith("30/100 steps [00:05<00:35, 100 pairs/s, loss 1.250]")
    bar.close()
