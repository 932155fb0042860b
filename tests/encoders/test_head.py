from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import write_json

from embedsvc.encoders.head import ACTIVATIONS, Head
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, Module

MEAN = Module("Pooling", Path("1_Pooling"), {"pooling_mode": "mean"})
TANH = "torch.nn.modules.activation.Tanh"


def model(*head: Module) -> ModelFolder:
    return ModelFolder(Path("m"), (Module("Transformer", Path("m")), *head), {}, None, ())


def dense(folder: Path, tensors: dict[str, np.ndarray], **config: Any) -> Module:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return Module("Dense", folder, config)


def run(head: Head, states: np.ndarray) -> np.ndarray:
    return head(states, np.ones(states.shape[:2], np.int64), np.zeros(len(states), np.int64))


def test_a_dense_layer_by_hand(tmp_path: Path) -> None:
    tensors = {
        "linear.weight": np.array([[1.0, 2.0]], np.float32),
        "linear.bias": np.array([0.5], np.float32),
    }
    head = Head(model(MEAN, dense(tmp_path / "2", tensors, activation_function=TANH)))
    states = np.array([[[0.1, 0.2], [0.3, 0.0]]], np.float32)
    assert run(head, states)[0, 0] == pytest.approx(math.tanh(0.2 + 2 * 0.1 + 0.5), rel=1e-6)


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    tensors = {"linear.weight": np.array([[0.5, 0.25]], np.float16)}
    head = Head(
        model(MEAN, dense(tmp_path / "2", tensors, activation_function="torch.nn.modules.linear.Identity"))
    )
    found = run(head, np.array([[[1.0, 1.0]]], np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [[0.75]]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Identity", -2.0, -2.0),
        ("Tanh", 0.5, math.tanh(0.5)),
        ("ReLU", -2.0, 0.0),
        ("Sigmoid", -100.0, 1 / (1 + math.exp(100))),
        ("GELU", 1.0, 0.5 * (1 + math.erf(1 / math.sqrt(2)))),
    ],
)
def test_activations_by_hand(name: str, value: float, expected: float) -> None:
    found = ACTIVATIONS[name](np.array([value], np.float32))
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.Softplus", "my.package.Tanh"])
def test_an_unsupported_activation_is_refused_by_name(tmp_path: Path, name: str) -> None:
    module = dense(tmp_path / "2", {"linear.weight": np.eye(2, dtype=np.float32)}, activation_function=name)
    with pytest.raises(ModelError, match=f"activation '{name}' is not supported; known are Identity, Tanh"):
        Head(model(MEAN, module))


def test_a_dense_file_without_its_matrix_is_refused(tmp_path: Path) -> None:
    module = dense(tmp_path / "2", {"weight": np.eye(2, dtype=np.float32)})
    with pytest.raises(
        ModelError, match=r"model\.safetensors has no matrix 'linear\.weight'; it has \['weight'\]"
    ):
        Head(model(MEAN, module))


def test_a_missing_dense_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"2_Dense/model\.safetensors is missing"):
        Head(model(MEAN, Module("Dense", tmp_path / "2_Dense")))


@pytest.mark.parametrize("head", [(), (Module("Dense", Path("d")), MEAN)])
def test_pooling_must_come_first(head: tuple[Module, ...]) -> None:
    with pytest.raises(ModelError, match=r"Pooling expected after the transformer, found (nothing|Dense)"):
        Head(model(*head))


@pytest.mark.parametrize(
    "module",
    [Module("LSTM", Path("2_LSTM")), Module("Dense", Path("d"), {"module_input_name": "token_embeddings"})],
)
def test_a_module_that_needs_torch_is_refused(module: Module) -> None:
    with pytest.raises(ModelError, match="cannot be computed without torch; use runtime torch"):
        Head(model(MEAN, module, Module("LSTM", Path("3"))))


def test_a_width_that_does_not_fit_is_found_when_the_model_is_opened(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the train extra to make ONNX graphs")
    from tiny_models import write_graph_model

    from embedsvc.encoder import load_encoder

    folder = write_graph_model(tmp_path / "m", inputs=("input_ids", "attention_mask"))
    dense(folder / "2_Dense", {"linear.weight": np.eye(3, dtype=np.float32)})
    write_json(folder / "2_Dense" / "config.json", {"activation_function": TANH})
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    write_json(folder / "modules.json", [{"type": kind, "path": path} for kind, path in kinds])
    with pytest.raises(ModelError, match=r"model\.onnx cannot encode a text"):
        load_encoder(folder)
