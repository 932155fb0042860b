from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.encoders.onnx_runtime import OnnxRuntime, graph_inputs
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import ModelFolder, open_model_folder
from embedsvc.options import EncodeOptions
from embedsvc.pooling import POOLING_MODES
from tests.encoders.tiny_models import TEXTS, with_head, write_graph_model
from training import onnx_head
from training.export import ExportOptions, export_model
from training.onnx_head import add_head
from training.parity import check_graph_vectors

INPUTS = ["input_ids", "attention_mask", "position_ids"]
ACTIVATIONS = ["Identity", "Tanh", "ReLU", "Sigmoid", "GELU"]


def pooling(*modes: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "Pooling", {"embedding_dimension": 2, "pooling_mode": list(modes)} | more


def folder_of(tmp_path: Path, *modules: tuple[str, dict[str, Any]], opset: int = 18) -> ModelFolder:
    plain = write_graph_model(tmp_path / "plain", inputs=INPUTS)
    path = plain / "onnx" / "model.onnx"
    model = onnx.load(path)
    model.opset_import[0].version = opset
    model.ir_version = 8
    onnx.save(model, path)
    return open_model_folder(with_head(plain, tmp_path / "model", modules))


def both(folder: ModelFolder) -> tuple[np.ndarray, np.ndarray]:
    """What the graph says, and what our own runtime pools, for texts of different lengths."""
    path = folder.onnx_files["float32"]
    add_head(path, folder)
    encoder = Encoder(folder, OnnxRuntime(folder))
    texts = encoder.prepare(TEXTS, EncodeOptions(truncate="end")).texts
    padded = SequenceInputs(folder).padded(texts)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {node.name: graph_inputs(padded)[node.name] for node in session.get_inputs()}
    (found,) = session.run(["sentence_embedding"], given)
    return found, encoder.runtime.embed(texts)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling_is_that_of_the_runtime(tmp_path: Path, mode: str, opset: int) -> None:
    found, expected = both(folder_of(tmp_path, pooling(mode), opset=opset))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.shape == (len(TEXTS), 2)


def test_mean_by_hand(tmp_path: Path) -> None:
    """ "w1" is token 8 at place 1, between [CLS] 2 and [SEP] 3; the second number is 1 + 100 * place."""
    found, _ = both(folder_of(tmp_path, pooling("mean")))
    assert found[0].tolist() == [pytest.approx((2 + 8 + 3) / 3), 101]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_dense_modules_are_those_of_the_runtime(tmp_path: Path, activation: str, residual: bool) -> None:
    scaled = {"inputs": 4, "outputs": 3, "activation": f"torch.nn.modules.activation.{activation}"}
    folder = folder_of(
        tmp_path,
        pooling("cls", "mean"),
        ("Normalize", {}),
        ("Dense", scaled | {"use_residual": residual}),
        ("Dropout", {}),
        ("Dense", scaled | {"inputs": 3, "outputs": 3, "use_residual": residual}),
    )
    found, expected = both(folder)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_normalize_at_the_end_is_in_the_graph(tmp_path: Path) -> None:
    found, expected = both(folder_of(tmp_path, pooling("mean"), ("Normalize", {})))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_our_runtime_serves_the_graph_as_before(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pooling("mean"), ("Normalize", {}))
    before = load_encoder(folder.path).encode(TEXTS, truncate="end")
    report = export_model(
        folder.path, tmp_path / "out", ExportOptions(pooled=True, dimensions=1, force_dimensions=True)
    )
    assert report.notes == ("cut to its first 1 of 2 dimensions",)
    after = load_encoder(tmp_path / "out")
    np.testing.assert_array_equal(after.encode(TEXTS, truncate="end"), np.sign(before[:, :1]))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    assert [node.name for node in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    assert len(after.encode_tokens(["w1 w2"]).vectors[0]) == 4


def test_a_graph_that_pools_otherwise_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, pooling("mean"))
    monkeypatch.setitem(onnx_head._MODES, "mean", lambda head: head.end(reverse=0))
    add_head(folder.onnx_files["float32"], folder)
    with pytest.raises(ModelError, match=r"sentence_embedding of the graph model.onnx differs .* by 0\.\d+"):
        check_graph_vectors(
            folder.onnx_files["float32"], Encoder(folder, OnnxRuntime(folder)), "sentence_embedding"
        )


def test_what_a_graph_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pooling("mean", include_prompt=False))
    with pytest.raises(InvalidInputError, match="does not know how long it is"):
        add_head(folder.onnx_files["float32"], folder)
    other = write_graph_model(tmp_path / "other", inputs=["input_ids"])
    with pytest.raises(ModelError, match="last_hidden_state and attention_mask in 13 or later are needed"):
        add_head(other / "onnx" / "model.onnx", folder)
