from __future__ import annotations

import pytest

from embedsvc.jobs import progress as progress_module
from embedsvc.jobs.progress import PROGRESS, ProgressFile, Stage, read_progress
from embedsvc.mining.progress import Step


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_the_rate_is_that_of_this_attempt(tmp_path, clock):
    file = ProgressFile(tmp_path / PROGRESS)
    file.report(Step("encode", 8000, 10_000))  # so far an earlier attempt came
    clock[0] += 4
    file.report(Step("encode", 9000, 10_000))
    (stage,) = read_progress(tmp_path).stages
    assert (stage.done, stage.total, stage.rate, stage.eta_s) == (9000, 10_000, 250.0, 4.0)


def test_stages_follow_each_other_and_are_written_at_once(tmp_path, clock):
    file = ProgressFile(tmp_path / PROGRESS)
    file.report(Step("read", 0, 0))
    clock[0] += 0.1
    file.report(Step("read", 7, 0))  # too soon to be written
    assert read_progress(tmp_path).stages[0].done == 0
    file.report(Step("encode", 0, 7))
    read, encode = read_progress(tmp_path).stages
    assert (read.stage, read.done, round(read.seconds, 3)) == ("read", 7, 0.1)
    assert (encode.stage, encode.seconds, encode.rate, encode.eta_s) == ("encode", 0.0, None, None)


def test_nobody_knows_the_end_of_a_stage_without_a_total():
    stage = Stage(stage="read", done=10, total=0, unit="lines", first=0, seconds=1.0)
    assert (stage.rate, stage.eta_s) == (10.0, None)


def test_a_full_disk_does_not_end_the_work(tmp_path):
    file = ProgressFile(tmp_path / "none" / PROGRESS)
    file.report(Step("read", 1, 2))
    assert read_progress(tmp_path / "none").stages == []


def test_half_a_file_is_no_progress(tmp_path):
    (tmp_path / PROGRESS).write_text('{"stages": [{')
    assert read_progress(tmp_path).stages == []
