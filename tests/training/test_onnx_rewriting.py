"""Rewritten graphs compute what they did, on matrices; int8 stays near, whatever the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the train extra to make ONNX graphs")

import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from embedsvc.errors import ModelError
from training import onnx_edit
from training.onnx_attention import split_heads_inside
from training.onnx_int8 import ColumnRanges, bounded_inputs, column_steps, int8_columns, use_int8
from training.onnx_rows import work_on_rows

WIDTH, INNER, HEADS = 8, 16, 2
NORMED = ColumnRanges(np.full(WIDTH, -6.0), np.full(WIDTH, 10.0))


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test gets the same numbers, whichever tests ran before."""
    monkeypatch.setattr(constant, "random", np.random.default_rng(5), raising=False)


def constant(*shape: int) -> np.ndarray:
    values: np.ndarray = constant.random.normal(size=shape)  # type: ignore[attr-defined]
    return values.astype(np.float32)


def graph(build: Callable[[Any], None], *, opset: int = 23) -> ModelProto:
    """Make a graph from x (n, t, 8) to y; ``build`` gets an ``add(op, inputs, output, **attributes)``."""
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def add(kind: str, inputs: list[Any], output: str, **attributes: Any) -> str:
        names = []
        for place, value in enumerate(inputs):
            name = value if isinstance(value, str) else f"{output}.{place}"
            if not isinstance(value, str):
                constants[name] = value
            names.append(name)
        nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    build(add)
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    import onnx

    return onnx.shape_inference.infer_shapes(model)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(["y"], {"x": x})[0])


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def block(add: Any) -> None:
    """A transformer layer: norm, attention over heads, residual, norm, GELU, residual."""
    add("LayerNormalization", ["x", constant(WIDTH) + 1, constant(WIDTH)], "a", axis=-1)
    split, whole = np.array([0, 0, HEADS, -1], np.int64), np.array([0, 0, -1], np.int64)
    for name in "qkv":
        add("MatMul", ["a", constant(WIDTH, WIDTH)], f"{name}0")
        add("Add", [constant(WIDTH), f"{name}0"], f"{name}1")
        add("Reshape", [f"{name}1", split], f"{name}2")
        add("Transpose", [f"{name}2"], f"{name}3", perm=[0, 2, 1, 3])
    add("Attention", ["q3", "k3", "v3"], "h0")
    add("Transpose", ["h0"], "h1", perm=[0, 2, 1, 3])
    add("Reshape", ["h1", whole], "h2")
    add("MatMul", ["h2", constant(WIDTH, WIDTH)], "o0")
    add("Add", ["o0", "a"], "o1")
    add("LayerNormalization", ["o1", constant(WIDTH), constant(WIDTH)], "b", axis=-1)
    add("MatMul", ["b", constant(WIDTH, INNER)], "f0")
    add("Add", ["f0", constant(INNER)], "f1")
    add("Gelu", ["f1"], "f2")
    add("MatMul", ["f2", constant(INNER, WIDTH)], "f3")
    add("Add", ["f3", constant(WIDTH)], "f4")
    add("Add", ["f4", "b"], "y")


def test_rows_and_whole_heads_change_no_value() -> None:
    model, x = graph(block), constant(3, 5, WIDTH)
    expected = run(model, x)
    split_heads_inside(model)
    assert "Transpose" not in kinds(model)
    assert kinds(model)["Attention"] == 1
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)
    work_on_rows(model)
    found = run(model, x)
    assert found.shape == (3, 5, WIDTH)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_products_work_on_one_matrix() -> None:
    model = graph(block)
    work_on_rows(model)
    names = [name for node in model.graph.node if node.op_type == "MatMul" for name in node.input[:1]]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    shapes = {value.shape for value in session.run(names, {"x": constant(3, 5, WIDTH)})}
    assert shapes == {(15, WIDTH), (15, INNER)}


def test_what_is_not_understood_stays_and_is_right() -> None:
    def build(add: Any) -> None:
        add("MatMul", ["x", constant(WIDTH, WIDTH)], "a")
        add("Softmax", ["a"], "b", axis=1)  # over the tokens: not row by row
        add("Add", ["a", constant(3, WIDTH)], "c")  # a row for each token
        add("Reshape", ["c", np.array([0, 0, -1], np.int64)], "d")  # copies dimensions
        add("Transpose", ["d"], "e", perm=[0, 2, 1])
        add("MatMul", ["b", "e"], "y")  # without weights

    model, x = graph(build), constant(2, 3, WIDTH)
    expected = run(model, x)
    split_heads_inside(model)
    work_on_rows(model)
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)
    use_int8(model, {})
    assert kinds(model)["MatMul"] == 1
    assert kinds(model)["MatMulIntegerToFloat"] == 1
    np.testing.assert_allclose(run(model, x), expected, atol=0.05 * np.abs(expected).max())


def int8_block() -> tuple[ModelProto, ModelProto]:
    plain = graph(block)
    split_heads_inside(plain)
    work_on_rows(plain)
    rounded = ModelProto()
    rounded.CopyFrom(plain)
    names = bounded_inputs(rounded)
    assert len(names) == 2
    use_int8(rounded, dict.fromkeys(names, NORMED))
    return plain, rounded


def test_int8_is_near_and_has_no_float_product() -> None:
    plain, rounded = int8_block()
    assert kinds(rounded)["MatMulIntegerToFloat"] == 6
    assert "MatMul" not in kinds(rounded)
    x = constant(4, 6, WIDTH)
    expected, found = run(plain, x), run(rounded, x)
    cosines = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert 0.995 < cosines.mean() < 1


def test_int8_gives_the_very_same_values_in_any_batch() -> None:
    _, rounded = int8_block()
    x = constant(4, 6, WIDTH)
    x[2] *= 1000  # a text of extreme numbers changes nothing for the others
    together = run(rounded, x)
    for row in range(4):
        np.testing.assert_array_equal(run(rounded, x[row : row + 1])[0], together[row])


def test_values_beyond_the_measured_range_are_cut_to_it_not_wrapped() -> None:
    def build(add: Any) -> None:
        add("LayerNormalization", ["x", np.full(WIDTH, 9, np.float32)], "a", axis=-1)
        add("MatMul", ["a", np.eye(WIDTH, dtype=np.float32)], "y")

    model = graph(build)
    work_on_rows(model)
    narrow = ColumnRanges(np.full(WIDTH, -0.8), np.full(WIDTH, 0.8))
    use_int8(model, dict.fromkeys(bounded_inputs(model), narrow))
    found = run(model, constant(2, 3, WIDTH))
    assert np.abs(found).max() == pytest.approx(0.8 * 1.25, rel=0.02)


def test_values_below_zero_survive_in_what_gelu_made() -> None:
    def build(add: Any) -> None:
        add("Gelu", ["x"], "a")
        add("MatMul", ["a", np.eye(WIDTH, dtype=np.float32)], "y")

    model = graph(build)
    work_on_rows(model)
    x = np.full((1, 1, WIDTH), -0.75, np.float32)  # where GELU is lowest: -0.17
    x[0, 0, 0] = 0.5
    use_int8(model, {})
    np.testing.assert_allclose(run(model, x)[0, 0, 1:], -0.17, atol=0.005)


def test_rows_of_zeros_stay_zeros() -> None:
    def build(add: Any) -> None:
        add("MatMul", ["x", constant(WIDTH, WIDTH)], "y")

    model = graph(build)
    work_on_rows(model)
    use_int8(model, {})
    assert np.abs(run(model, np.zeros((1, 2, WIDTH), np.float32))).max() == 0


def test_weights_rounded_by_hand() -> None:
    steps, scales = int8_columns(np.array([[1.27, 0.0], [-0.64, 0.0]]))
    assert steps.tolist() == [[127, 0], [-64, 0]]
    assert scales[0] == pytest.approx(0.01)


def test_column_steps_by_hand() -> None:
    # Widened by 1.25: both columns reach 127 steps of 0.01 to each side of their middle.
    steps = column_steps(ColumnRanges(np.array([0.0, -1.016]), np.array([2.032, 1.016])))
    np.testing.assert_allclose(steps.scales, 0.01)
    np.testing.assert_allclose(steps.zeros, [127.5 - 101.6, 127.5])


def test_a_quiet_column_gets_larger_steps_than_it_needs() -> None:
    steps = column_steps(ColumnRanges(np.array([-100.0, -1.0]), np.array([100.0, 1.0])))
    assert 5 < steps.scales[0] / steps.scales[1] < 20, "not the 100 of the ranges"


@pytest.mark.parametrize(
    ("opset", "kind", "message"),
    [(17, "MatMul", "opset 18 and later; this one has 17"), (18, "Add", "no product with constant weights")],
)
def test_a_graph_that_cannot_be_int8_is_refused(opset: int, kind: str, message: str) -> None:
    def build(add: Any) -> None:
        add(kind, ["x", constant(WIDTH, WIDTH) if kind == "MatMul" else constant(WIDTH)], "y")

    with pytest.raises(ModelError, match=message):
        use_int8(graph(build, opset=opset), {})


def test_weights_too_large_for_one_file_go_beside_it_and_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph(lambda add: add("MatMul", ["x", constant(WIDTH, 256)], "y"))
    monkeypatch.setattr(onnx_edit, "_INLINE_BYTES", 100)
    onnx_edit.save_model(model, tmp_path / "model.onnx")
    x = constant(2, 3, WIDTH)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], run(model, x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx_data"]
