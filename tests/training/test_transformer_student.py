"""A transformer is taught as a table is: the vectors that are served, the same weights however it is fed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from safetensors.torch import load_file  # noqa: E402

from embedsvc import load_encoder  # noqa: E402
from embedsvc.errors import EmbedsvcError, InvalidInputError, StorageError  # noqa: E402
from tests.encoders.tiny_models import with_head, word_tokenizer  # noqa: E402
from tests.training.cloned import write_cloned_pairs  # noqa: E402
from tests.training.cloned_transformer import TINY, recipe, write_bert, write_word_pairs  # noqa: E402
from tests.training.room import room_for  # noqa: E402
from training.config import Recipe  # noqa: E402
from training.data import token_bags  # noqa: E402
from training.learner import Learner  # noqa: E402
from training.trainer import train  # noqa: E402
from training.transformer_chain import open_chain  # noqa: E402
from training.transformer_student import TransformerStudent  # noqa: E402

Weights = dict[str, "torch.Tensor"]


MORE_WORDS = ["qr", "rs", "tu", "vw", "qq", "xyz", "ss"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cloned pairs, and a tokenizer of whole words: the library breaks ties between merges at random."""
    folder = tmp_path_factory.mktemp("cloned")
    write_cloned_pairs(folder / "pairs.tsv", sentences=300, words=60)
    rows = [line.split("\t") for line in (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    words = {word for english, _, other in rows for word in f"{english} {other}".split()}
    word_tokenizer([*sorted(words), *MORE_WORDS], special=False).save(str(folder / "tokenizer.json"))
    return folder


def run(data: Path, out: Path, config: Recipe) -> Weights:
    """Train and return the weights of the model folder."""
    (out / "run").mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "tokenizer.json", out / "run")
    weights: Weights = load_file(train(config, out, data, progress=False) / "model.safetensors")
    return weights


def difference(x: Weights, y: Weights) -> float:
    assert x.keys() == y.keys()
    return max((x[name] - y[name]).abs().max().item() for name in x)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    run(data, out, recipe())
    return out


@pytest.fixture(scope="module")
def weights(plain: Path) -> Weights:
    loaded: Weights = load_file(plain / "model.safetensors")
    return loaded


def test_the_saved_folder_gives_the_vectors_that_were_evaluated(
    plain: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of many lengths, some cut at the limit of the recipe."""
    texts = ["qr", "rs tu " * 30, "vw qq xyz ss"]
    encoder = load_encoder(plain)
    seen: list[Any] = []
    monkeypatch.setattr(TransformerStudent, "write", lambda student, _: seen.append(student))
    train(recipe(), plain, data, progress=False)
    chain = open_chain(plain, recipe().model, seed=1)
    bags = token_bags([row[:30] for row in chain.tokenize(texts)])
    assert bags.lengths.max() == 30
    served = encoder.encode(texts, truncate="end")
    assert seen[0].vectors(bags) == pytest.approx(served, abs=1e-6)
    assert encoder.folder.matryoshka_dimensions == ()


def test_chunks_of_any_size_teach_the_same(data: Path, weights: Weights, tmp_path: Path) -> None:
    chunked = run(data, tmp_path / "chunked", recipe(schedule={"chunk": 12}))
    assert difference(chunked, weights) < 2e-5
    other = run(data, tmp_path / "other", recipe(seed=4))
    assert difference(other, weights) > 1e-2, "the comparison can fail"


def test_dropout_is_the_same_in_every_run(data: Path, weights: Weights, tmp_path: Path) -> None:
    config = recipe(model={"fresh": {**TINY, "dropout": 0.1}}, schedule={"chunk": 12})
    first, second = (run(data, tmp_path / name, config) for name in "ab")
    assert difference(first, second) == 0
    assert difference(first, weights) > 1e-3


def test_gradient_checkpointing_changes_nothing_but_memory(
    data: Path, weights: Weights, tmp_path: Path
) -> None:
    config = recipe(schedule={"gradient_checkpointing": True})
    assert difference(run(data, tmp_path / "model", config), weights) < 1e-6


def test_bf16_learns_nearly_the_same_and_keeps_float32_weights(
    data: Path, weights: Weights, tmp_path: Path
) -> None:
    rounded = run(data, tmp_path / "model", recipe(schedule={"precision": "bf16"}))
    assert {tensor.dtype for tensor in rounded.values()} == {torch.float32}
    assert 0 < difference(rounded, weights) < 2e-2


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(
        model={"fresh": {**TINY, "dropout": 0.1}, "dimension": 24},
        losses=[{"kind": "translation_ranking"}, {"kind": "koleo", "weight": 0.1}],
    )
    run(data, tmp_path / "whole", config)

    save = Learner.checkpoint

    def save_and_die(learner: Learner, done: int, path: Path) -> None:
        save(learner, done, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "halves", config)
    monkeypatch.undo()
    assert torch.load(tmp_path / "halves" / "run" / "checkpoint.pt")["step"] == 2
    run(data, tmp_path / "halves", config)
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_weight_decay_is_for_matrices_and_long_gradients_are_cut(tmp_path: Path) -> None:
    config = recipe(model={"transformer": "x"}, schedule={"weight_decay": 0.5, "clip": 2.0})
    chain = open_chain(write_bert(tmp_path / "bert"), config.model, seed=1)
    student = TransformerStudent(chain, config, torch.device("cpu"))
    before = {name: weight.detach().clone() for name, weight in student.weights.items()}
    for weight in student.weights.values():
        weight.grad = torch.zeros_like(weight)
    bias = next(name for name in before if name.endswith("query.bias"))
    matrix = next(name for name in before if name.endswith("query.weight"))
    norm = next(name for name in before if name.endswith("LayerNorm.weight"))
    gradient = student.weights[bias].grad
    assert gradient is not None
    gradient[:2] = torch.tensor([30.0, 40.0])  # of length 50: cut to 1.2 and 1.6
    assert student.finite()
    student.update(1, 0.1)
    now = {name: weight.detach() for name, weight in student.weights.items()}
    assert torch.allclose(now[matrix], before[matrix] * 0.95)
    assert torch.equal(now[norm], before[norm])
    assert torch.allclose(now[bias][:2], before[bias][:2] - 0.1)  # Adam's first step, of any gradient
    assert student.state()[f"exp_avg.{bias}"][:2].tolist() == pytest.approx([0.12, 0.16])


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_a_plain_transformer_gets_the_pooling_prompt_and_dimension_of_the_recipe(
    mode: str, tmp_path: Path
) -> None:
    source = write_bert(tmp_path / "bert")
    write_word_pairs(tmp_path / "pairs.tsv")
    config = recipe(
        model={
            **{"transformer": str(source), "pooling": mode, "prompt": "query : "},
            **{"dimension": 6, "matryoshka": [4]},
        },
        schedule={"batch": 8, "steps": 2, "evaluate_every": 2},
    )
    encoder = load_encoder(train(config, tmp_path / "out", tmp_path, progress=False))
    assert [module.kind for module in encoder.folder.modules] == [
        *("Transformer", "Pooling", "Dense", "Normalize")
    ]
    assert encoder.folder.modules[1].config["pooling_mode"] == mode
    assert encoder.dimension == 6
    assert encoder.folder.matryoshka_dimensions == (4, 6)
    assert encoder.encode(["w1"]) == pytest.approx(encoder.encode(["query : w1"], prompt=""), abs=1e-6)


def test_a_prompt_that_is_not_pooled_is_not_pooled_in_training(tmp_path: Path) -> None:
    pooling = {"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": False}
    source = with_head(
        write_bert(tmp_path / "bert"),
        tmp_path / "head",
        [("Pooling", pooling), ("Normalize", {})],
        prompts={"q": "query : "},
        default_prompt_name="q",
    )
    config = recipe(model={"transformer": str(source)})
    chain = open_chain(source, config.model, seed=1)
    texts = ["w1", "w2 w3 w4 w5", "w6 w7"]
    bags = token_bags(chain.tokenize(texts))
    vectors = TransformerStudent(chain, config, torch.device("cpu")).vectors(bags)
    encoder = load_encoder(source)
    assert vectors == pytest.approx(encoder.encode(texts), abs=1e-6)
    assert abs(vectors - encoder.encode(texts, prompt="")).max() > 1e-3


def test_another_folder_in_the_students_place_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bert")
    write_cloned_pairs(tmp_path / "pairs.tsv", sentences=100, words=30)
    config = recipe(model={"transformer": str(source)}, schedule={"steps": 1})
    train(config, tmp_path / "out", tmp_path, progress=False)
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(settings | {"layer_norm_eps": 1e-3}))
    with pytest.raises(InvalidInputError, match="holds a run of another student"):
        train(config, tmp_path / "out", tmp_path, progress=False)


def test_weights_that_are_no_longer_finite_stop_the_run(data: Path, tmp_path: Path) -> None:
    wild = recipe(schedule={"learning_rate": 1e38, "warmup_steps": 0})
    with pytest.raises(EmbedsvcError, match=r"of batch \d+ is (nan|not finite)|no longer finite after batch"):
        run(data, tmp_path / "model", wild)
    assert not (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("model", "schedule", "message"),
    [
        ({}, {"chunk": 8}, r"schedule\.chunk is for transformers; the student is a static table"),
        ({"pooling": "cls"}, {}, "pooling is for transformers; the student is a static table"),
        ({"transformer": "x", "fresh": TINY}, {}, "a ready-made transformer or the sizes of a fresh one"),
        ({"fresh": {**TINY, "heads": 5}}, {}, r"hidden = 32 is not a multiple of heads = 5"),
        ({"fresh": TINY, "matryoshka": [32]}, {}, r"\[32\] must be smaller than dimension 32"),
    ],
)
def test_a_student_that_cannot_be_is_refused(
    model: dict[str, Any], schedule: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(model=model, schedule=schedule)


def test_a_transformer_must_be_given_its_learning_rate() -> None:
    values = recipe().model_dump(exclude={"schedule": {"learning_rate"}})
    with pytest.raises(ValueError, match=r"needs schedule\.learning_rate: about 2e-5"):
        Recipe.model_validate(values)


def test_prefixes_must_fit_the_folder_too(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bert")
    config = recipe(model={"transformer": str(source), "matryoshka": [16]})
    with pytest.raises(InvalidInputError, match=r"\[16\] must be smaller than the student's dimension 16"):
        open_chain(source, config.model, seed=1)


def test_lora_teaches_adapters_alone_and_merges_them_into_the_model(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bert")
    write_word_pairs(tmp_path / "pairs.tsv")
    config = recipe(
        model={"transformer": str(source), "lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "value"]}},
        schedule={"batch": 8, "learning_rate": 0.05},
    )
    out = train(config, tmp_path / "out", tmp_path, progress=False)
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"encoder.layer.{layer}.attention.self.{target}.weight"
        for layer in (0, 1)
        for target in ("query", "value")
    }
    adapter = load_file(out / "run" / "adapter" / "adapter_model.safetensors")
    a, b = (
        adapter[f"base_model.model.encoder.layer.1.attention.self.query.lora_{part}.weight"] for part in "AB"
    )
    name = "encoder.layer.1.attention.self.query.weight"
    assert torch.allclose(after[name], before[name] + 2 * b @ a, atol=1e-6)
    kept = torch.load(out / "run" / "checkpoint.pt")["model"]
    assert {key for key in kept if key.startswith("weight.") and "lora_" not in key} == set()
    weights = (out / "model.safetensors").read_bytes()
    train(config, out, tmp_path, progress=False)  # again, from the last checkpoint
    assert (out / "model.safetensors").read_bytes() == weights


def test_targets_that_are_no_layers_are_named(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bert")
    config = recipe(model={"transformer": str(source), "lora": {"targets": ["qeury"]}})
    with pytest.raises(InvalidInputError, match=r"\['qeury'\].*Its linear layers: dense, key, query, value"):
        open_chain(source, config.model, seed=1)


def test_frozen_layers_keep_their_weights(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "bert")

    def taught(layers: int) -> set[str]:
        config = recipe(model={"transformer": str(source), "frozen_layers": layers})
        weights = open_chain(source, config.model, seed=1).transformer.named_parameters()
        return {name.split(".attention")[0] for name, weight in weights if weight.requires_grad}

    assert not any("embeddings" in name for name in taught(0))
    assert "encoder.layer.0" in taught(0)
    assert "encoder.layer.0" not in taught(1)
    assert "encoder.layer.1" in taught(1)
    with pytest.raises(InvalidInputError, match=r"frozen_layers = 3: the transformer has 2 layers"):
        taught(3)


def test_a_full_disk_leaves_the_checkpoint_before(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    save = Learner.checkpoint

    def save_on_a_full_disk(learner: Learner, done: int, path: Path) -> None:
        if done == 4:
            with room_for(50_000):
                save(learner, done, path)
        save(learner, done, path)

    monkeypatch.setattr(Learner, "checkpoint", save_on_a_full_disk)
    with pytest.raises(StorageError, match=r"checkpoint\.pt cannot be written: .*File too large"):
        run(data, out, recipe())
    assert torch.load(out / "run" / "checkpoint.pt")["step"] == 2
    monkeypatch.undo()
    run(data, out, recipe())
    assert (out / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_a_full_disk_leaves_the_model_before(plain: Path) -> None:
    weights = (plain / "model.safetensors").read_bytes()
    student = TransformerStudent(open_chain(plain, recipe().model, seed=1), recipe(), torch.device("cpu"))
    with room_for(50_000), pytest.raises(StorageError, match="the model cannot be written"):
        student.write(plain)
    assert (plain / "model.safetensors").read_bytes() == weights
    assert not list(plain.glob(".model.*"))
