"""How many batches run side by side, and on how many threads each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.model_folder import BUNDLED, open_model_folder
from embedsvc.runtime import PreparedText, RuntimeOptions
from embedsvc.scheduling import layout
from embedsvc.scheduling.layout import open_laid_out

pytest.importorskip("onnx", reason="needs the train extra to make ONNX graphs")
sys.path.insert(0, str(Path(__file__).parents[1] / "encoders"))
from tiny_models import write_graph_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "effective_cpus", lambda: 4)
    return open_model_folder(write_graph_model(tmp_path / "m", inputs=("input_ids", "attention_mask")))


def test_static_models_bring_their_own_number_of_workers():
    assert open_laid_out(open_model_folder(BUNDLED), RuntimeOptions()).workers == 1
    assert open_laid_out(open_model_folder(BUNDLED), RuntimeOptions(), 3).workers == 3


@pytest.mark.parametrize(
    ("rates", "workers"),
    [
        ({4: 100.0, 1: 90.0}, 4),
        ({4: 100.0, 1: 115.0}, 4),  # within what a busy machine errs
        ({4: 100.0, 1: 150.0}, 1),
    ],
)
def test_the_clearly_faster_way_to_use_the_processors_is_taken(folder, monkeypatch, rates, workers):
    monkeypatch.setattr(layout, "batches_per_second", lambda runtime: rates[runtime.workers])
    assert open_laid_out(folder, RuntimeOptions()).workers == workers


def test_workers_that_are_asked_for_share_the_processors(folder, monkeypatch):
    threads = []
    opened = OnnxRuntime.__init__

    def noting(self, *args, **options):
        threads.append(options["threads"])
        opened(self, *args, **options)

    monkeypatch.setattr(OnnxRuntime, "__init__", noting)
    assert open_laid_out(folder, RuntimeOptions(), 2).workers == 2
    assert open_laid_out(folder, RuntimeOptions(), 8).workers == 8
    assert threads == [2, 1]


def test_measuring_leaves_a_working_runtime(folder):
    runtime = open_laid_out(folder, RuntimeOptions())
    assert runtime.workers in (1, 4)
    batch = [PreparedText(ids) for ids in runtime.tokenize(["w1 w2", "w3"])]
    assert runtime.embed(batch).shape == (2, runtime.dimension)
