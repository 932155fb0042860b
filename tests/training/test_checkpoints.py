"""What a run keeps to go on from, and the mean of what it kept."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from click.testing import CliRunner  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from embedsvc.encoder import load_encoder  # noqa: E402
from embedsvc.errors import EmbedsvcError, InvalidInputError, StorageError  # noqa: E402
from tests.training.cloned import write_cloned_pairs  # noqa: E402
from tests.training.cloned_transformer import recipe, write_bert, write_word_pairs  # noqa: E402
from tests.training.room import room_for  # noqa: E402
from training import trainer  # noqa: E402
from training.checkpoint_models import checkpoint_models  # noqa: E402
from training.checkpoints import Checkpoints  # noqa: E402
from training.cli import export  # noqa: E402
from training.config import Recipe  # noqa: E402
from training.export import ExportOptions, export_model  # noqa: E402
from training.trainer import train  # noqa: E402

KEPT = {"keep_checkpoints": 3, "checkpoint_every": 2, "steps": 9, "evaluate_every": 9, "learning_rate": 0.05}


def static(**schedule: Any) -> Recipe:
    """A table that keeps the states after 6, 8 and 9 of 9 steps."""
    return recipe(model={"dimension": 8, "matryoshka": []}, schedule={**KEPT, **schedule})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloned")
    write_cloned_pairs(folder / "pairs.tsv", sentences=60, words=40)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(static(), tmp_path_factory.mktemp("run") / "whole", data, progress=False)


def go_on(whole: Path, out: Path, data: Path) -> None:
    """Train ``out`` to its end, and compare all that it kept with the run that was not interrupted."""
    train(static(), out, data, progress=False)
    assert_same(whole, out)


def assert_same(whole: Path, out: Path) -> None:
    one, other = (Checkpoints(folder / "run", static().schedule).kept() for folder in (whole, out))
    assert list(one) == list(other) == [6, 8, 9]
    for step, path in one.items():
        mine, theirs = torch.load(path)["model"], torch.load(other[step])["model"]
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items()), step
    assert (whole / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def same_tokenizer(whole: Path, out: Path) -> Path:
    """The tokenizers library breaks ties between merges at random: both runs start from the same one."""
    (out / "run").mkdir(parents=True)
    (out / "run" / "tokenizer.json").write_bytes((whole / "run" / "tokenizer.json").read_bytes())
    return out


def test_the_last_so_many_are_kept_under_their_steps(whole: Path) -> None:
    assert not (whole / "run" / "checkpoint.pt").exists()
    kept = sorted(path.name for path in (whole / "run" / "checkpoints").iterdir())
    assert kept == ["6.pt", "8.pt", "9.pt"]
    assert [torch.load(whole / "run" / "checkpoints" / name)["step"] for name in kept] == [6, 8, 9]


def test_a_run_that_was_stopped_between_two_keeps_the_same_in_the_end(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = same_tokenizer(whole, tmp_path / "model")
    answers = iter([False] * 6 + [True])
    monkeypatch.setattr(trainer, "any_process", lambda *_: next(answers, False))
    with pytest.raises(EmbedsvcError, match="stopped at step 7 of 9"):
        train(static(), out, data, progress=False)
    assert list(Checkpoints(out / "run", static().schedule).kept()) == [2, 4, 6, 7]
    go_on(whole, out, data)


def test_a_run_that_was_killed_before_it_removed_the_oldest_does_so_when_called_again(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Checkpoints) -> None:
        if 9 in self.kept():
            raise KeyboardInterrupt
        drop_old(self)

    out, drop_old = same_tokenizer(whole, tmp_path / "model"), Checkpoints.drop_old
    monkeypatch.setattr(Checkpoints, "drop_old", die)
    with pytest.raises(KeyboardInterrupt):
        train(static(), out, data, progress=False)
    monkeypatch.undo()
    assert list(Checkpoints(out / "run", static().schedule).kept()) == [4, 6, 8, 9]
    go_on(whole, out, data)


def test_a_damaged_checkpoint_is_told_and_the_one_before_gone_on_from(
    data: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = same_tokenizer(whole, tmp_path / "model")
    train(static(), out, data, progress=False)
    kept = Checkpoints(out / "run", static().schedule).kept()
    kept[9].write_bytes(kept[9].read_bytes()[:1000])
    kept[8].write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        go_on(whole, out, data)
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" is damaged")[0] for line in told] == [str(kept[9]), str(kept[8])]
    for path in kept.values():
        path.write_bytes(b"nothing")
    with pytest.raises(StorageError, match=r"6\.pt is damaged and cannot be read"):
        train(static(), out, data, progress=False)


def test_a_full_disk_leaves_those_before(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = same_tokenizer(whole, tmp_path / "model"), torch.save

    def full(state: Any, file: Any) -> None:
        with room_for(5_000 if state["step"] == 6 else 10_000_000):
            write(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match=r"6\.pt cannot be written"):
        train(static(), out, data, progress=False)
    monkeypatch.undo()
    assert sorted(path.name for path in (out / "run" / "checkpoints").iterdir()) == ["2.pt", "4.pt"]
    go_on(whole, out, data)


def folded(path: Path) -> np.ndarray:
    state = torch.load(path)["model"]
    return (state["vector"] * state["log_weight"].exp().unsqueeze(1)).numpy()


def test_an_export_takes_the_mean_of_what_a_run_kept(whole: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(whole), "--out", str(tmp_path / "mean"), "--checkpoints"])
    assert result.output.startswith(f"the mean of 3 checkpoints: {whole} after 6, 8, 9 steps\n")
    tables = [folded(whole / "run" / "checkpoints" / f"{step}.pt") for step in (6, 8, 9)]
    found = load_encoder(tmp_path / "mean").runtime.table  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, np.mean(tables, axis=0), rtol=1e-6)
    assert np.abs(found - tables[-1]).max() > 1e-3
    assert (tmp_path / "mean" / "README.md").read_text().count("the mean of 3 checkpoints") == 1


def test_runs_are_averaged_checkpoint_by_checkpoint(whole: Path, tmp_path: Path) -> None:
    other = shutil.copytree(whole, tmp_path / "other")
    nine = other / "run" / "checkpoints" / "9.pt"
    state = torch.load(nine)
    state["model"]["vector"] *= 7
    torch.save(state, nine)
    report = export_model(whole, tmp_path / "mean", ExportOptions(average=[other], checkpoints=True))
    told = [f"{run} after 6, 8, 9 steps" for run in (whole, other)]
    assert report.notes == (f"the mean of 6 checkpoints: {'; '.join(told)}",)
    six, eight, nine_before = (folded(whole / "run" / "checkpoints" / f"{step}.pt") for step in (6, 8, 9))
    found = load_encoder(tmp_path / "mean").runtime.table  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, (six + eight + 4 * nine_before) / 3, rtol=1e-5, atol=1e-7)


def test_what_kept_nothing_has_no_mean(data: Path, tmp_path: Path) -> None:
    single = train(static(keep_checkpoints=1), tmp_path / "single", data, progress=False)
    for folder, message in ((single, "kept no checkpoints but the last"), (data, "is no run of")):
        with pytest.raises(InvalidInputError, match=message):
            checkpoint_models(folder, tmp_path / "work")


@pytest.mark.slow
def test_adapters_are_merged_before_their_mean_is_taken(tmp_path: Path) -> None:
    """The mean of products is not the product of means."""
    source = write_bert(tmp_path / "bert")
    write_word_pairs(tmp_path / "pairs.tsv")
    lora = {"rank": 2, "alpha": 4.0, "targets": ["query"]}
    config = recipe(
        model={"transformer": str(source), "lora": lora},
        schedule={"batch": 8, "learning_rate": 0.05, "keep_checkpoints": 2},
    )
    out = train(config, tmp_path / "out", tmp_path, progress=False)
    models = checkpoint_models(out, tmp_path / "work")
    name = "encoder.layer.1.attention.self.query.weight"
    before = load_file(source / "model.safetensors")[name]
    for step, model in models.items():
        state = torch.load(out / "run" / "checkpoints" / f"{step}.pt")["model"]
        keys = [key for key in state if key.startswith("weight.") and "layer.1." in key]
        a, b = (next(state[key] for key in keys if f"lora_{part}" in key) for part in "AB")
        expected = before + 2 * (b @ a).numpy()
        np.testing.assert_allclose(load_file(model.path / "model.safetensors")[name], expected, atol=1e-6)
    assert list(models) == [2, 4]
    last = load_file(models[4].path / "model.safetensors")
    np.testing.assert_array_equal(last[name], load_file(out / "model.safetensors")[name])
    changed = write_bert(tmp_path / "other", dropout=0.5) / "config.json"
    (source / "config.json").write_bytes(changed.read_bytes())
    with pytest.raises(InvalidInputError, match=r"bert has changed since .* was trained from it"):
        checkpoint_models(out, tmp_path / "again")
