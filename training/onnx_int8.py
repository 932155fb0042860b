"""An ONNX transformer with int8 products whose vectors do not depend on what else is in the batch.

ONNX Runtime's own dynamic int8 gives a whole batch one activation scale. Here each number is rounded
on a scale that depends on its column or its row alone:

- what a layer norm made stays in about the same range for every text: each column has a fixed range,
  measured on sample texts and widened, and the scales of the columns are moved into the weights;
- what GELU made is never below -0.17: each row is scaled by its own largest number, and 20 of the
  256 steps are kept for what is below zero;
- anything else: each row is scaled by its own largest absolute number.

Weights have one scale for each output column, 8 bits, as have the rows of the token embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from embedsvc.errors import ModelError
from training.onnx_edit import Constants, attribute, consumers, opset_version, producers, replace_nodes

Floats = NDArray[np.float64]

MIN_OPSET = 18
_CONTRIB = "com.microsoft"
_WIDENED = 1.25  # of the range measured on the sample texts: others reach further
_TABLE_ROWS = 1024  # smaller tables (positions, token types) are not worth the extra step
_MIDDLE = 128
_GELU_ZERO = 20  # steps below zero
_GELU_LEAST = 2.0  # the last step is at least this, so that those 20 steps reach -0.17
_TINY = 1e-12  # an all-zero row or column still needs a step


@dataclass(frozen=True)
class ColumnRanges:
    """The least and the largest value of each column (width,) on the sample texts."""

    low: Floats
    high: Floats


def bounded_inputs(model: ModelProto) -> list[str]:
    """Return the inputs of products whose column ranges `use_int8` needs: what layer norms made."""
    constants, made_by = Constants(model.graph), producers(model.graph)
    names = [node.input[0] for node in model.graph.node if is_product(node, constants)]
    return [name for name in dict.fromkeys(names) if made_by_kind(name, made_by) == "LayerNormalization"]


def use_int8(model: ModelProto, ranges: Mapping[str, ColumnRanges]) -> None:
    """Rewrite in place a float32 graph that works on rows; ``ranges`` are those of `bounded_inputs`.

    Raises ModelError for a graph without a product to round, or one written for an old opset.
    """
    if opset_version(model) < MIN_OPSET:
        raise ModelError(
            f"int8 is made from graphs of opset {MIN_OPSET} and later; this one has {opset_version(model)}"
        )
    rewriting = _Rewriting(model.graph, ranges)
    nodes = [new for node in model.graph.node for new in rewriting.nodes(node)]
    if not any(node.op_type == "MatMulIntegerToFloat" for node in nodes):
        raise ModelError("the graph has no product with constant weights to make int8")
    replace_nodes(model.graph, nodes)
    if all(entry.domain != _CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))


@dataclass(frozen=True)
class _Columns:
    """Fixed steps: column k of the input is scales[k] * (step - zeros[k])."""

    scales: Floats
    zeros: Floats


@dataclass(frozen=True)
class _Rows:
    """Steps by row: the input is scales * (step - zero); both are names in the graph."""

    scales: str  # (tokens, 1)
    zero: str


class _Rewriting:
    def __init__(self, graph: GraphProto, ranges: Mapping[str, ColumnRanges]) -> None:
        self._constants = Constants(graph)
        self._made_by = producers(graph)
        self._read_by = consumers(graph)
        self._ranges = ranges
        self._steps: dict[str, _Columns | _Rows] = {}  # of the inputs rounded so far
        self._taken: set[str] = set()  # what the Adds made that became part of a product

    def nodes(self, node: NodeProto) -> Iterator[NodeProto]:
        if is_product(node, self._constants):
            yield from self._product(node)
        elif self._is_lookup(node):
            yield from self._lookup(node)
        elif node.output[0] not in self._taken:
            yield node

    def _product(self, node: NodeProto) -> Iterator[NodeProto]:
        source, name = node.input
        if source not in self._steps:
            yield from self._round(source)
        steps = self._steps[source]
        weights = self._constants.array(name).astype(np.float64)
        bias, result = self._bias(node)
        if isinstance(steps, _Columns):
            weights = weights * steps.scales[:, None]
        rounded, scales = int8_columns(weights)
        zero = self._constants.add(
            f"{name}/zero", np.int8(0)
        )  # one each: ORT may rewrite it with the weights
        inputs = [
            *(f"{source}/steps", self._constants.add(f"{name}/int8", rounded)),
            *(self._constant(1.0), self._constants.add(f"{name}/scales", scales)),
        ]
        if isinstance(steps, _Columns):
            middle = (_MIDDLE - steps.zeros) @ weights  # what the middle steps stand for, with exact weights
            total = self._constants.add(f"{result}/bias", (bias + middle).astype(np.float32))
            inputs += [self._zero(_MIDDLE), zero, total]
            yield helper.make_node("MatMulIntegerToFloat", inputs, [result], domain=_CONTRIB)
            return
        inputs += [steps.zero, zero]
        total = self._constants.add(f"{result}/bias", bias.astype(np.float32))
        yield helper.make_node("MatMulIntegerToFloat", inputs, [f"{result}/unscaled"], domain=_CONTRIB)
        yield helper.make_node("Mul", [f"{result}/unscaled", steps.scales], [f"{result}/product"])
        yield helper.make_node("Add", [f"{result}/product", total], [result])

    def _bias(self, node: NodeProto) -> tuple[Floats, str]:
        """Return what is added to a product (zeros where nothing is) and the name of the result."""
        made = node.output[0]
        readers = self._read_by.get(made, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            other = next((name for name in readers[0].input if name != made), made)
            if self._constants.rank(other) == 1:
                self._taken.add(readers[0].output[0])
                return self._constants.array(other).astype(np.float64), readers[0].output[0]
        return np.zeros(self._constants.array(node.input[1]).shape[1]), made

    def _round(self, source: str) -> Iterator[NodeProto]:
        kind = made_by_kind(source, self._made_by)
        if kind == "LayerNormalization":
            yield from self._round_columns(source)
        elif kind == "Gelu":
            yield from self._round_rows(source, source, least=_GELU_LEAST, zero=_GELU_ZERO)
        else:
            yield helper.make_node("Abs", [source], [f"{source}/absolute"])
            yield from self._round_rows(source, f"{source}/absolute", least=_TINY, zero=_MIDDLE)

    def _round_columns(self, source: str) -> Iterator[NodeProto]:
        steps = self._steps[source] = column_steps(self._ranges[source])
        scale = self._constants.add(f"{source}/per_step", (1 / steps.scales).astype(np.float32))
        zeros = self._constants.add(f"{source}/zeros", steps.zeros.astype(np.float32))
        yield helper.make_node("Mul", [source, scale], [f"{source}/scaled"])
        yield helper.make_node("Add", [f"{source}/scaled", zeros], [f"{source}/shifted"])
        yield helper.make_node(
            "QuantizeLinear", [f"{source}/shifted", self._constant(1.0), self._zero(0)], [f"{source}/steps"]
        )

    def _round_rows(self, source: str, sizes: str, *, least: float, zero: int) -> Iterator[NodeProto]:
        """Round on one scale for each row, so that its largest size is the last step."""
        scales, column = f"{source}/scales", f"{source}/scale_column"
        self._steps[source] = _Rows(column, self._zero(zero))
        yield helper.make_node("ReduceMax", [sizes, self._last_axis()], [f"{source}/largest"], keepdims=0)
        yield helper.make_node("Max", [f"{source}/largest", self._constant(least)], [f"{source}/reach"])
        yield helper.make_node("Mul", [f"{source}/reach", self._constant(1 / (255 - zero))], [scales])
        yield helper.make_node("Shape", [scales], [f"{source}/count"])
        yield helper.make_node("Expand", [self._zero(zero), f"{source}/count"], [f"{source}/row_zeros"])
        yield helper.make_node(
            "QuantizeLinear", [source, scales, f"{source}/row_zeros"], [f"{source}/steps"], axis=0
        )
        yield helper.make_node("Unsqueeze", [scales, self._last_axis()], [column])

    def _is_lookup(self, node: NodeProto) -> bool:
        if node.op_type != "Gather" or self._constants.rank(node.input[0]) != 2:
            return False
        table = self._constants.array(node.input[0])
        return table.dtype == np.float32 and len(table) >= _TABLE_ROWS and attribute(node, "axis", 0) == 0

    def _lookup(self, node: NodeProto) -> Iterator[NodeProto]:
        """Look up rounded rows and their scales."""
        (table, ids), made = node.input, node.output[0]
        rounded, scales = int8_columns(self._constants.array(table).T)
        self._constants.add(f"{table}/int8", np.ascontiguousarray(rounded.T))
        self._constants.add(f"{table}/scales", scales[:, None])
        yield helper.make_node("Gather", [f"{table}/int8", ids], [f"{made}/steps"])
        yield helper.make_node("Gather", [f"{table}/scales", ids], [f"{made}/scales"])
        yield helper.make_node("Cast", [f"{made}/steps"], [f"{made}/unscaled"], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [f"{made}/unscaled", f"{made}/scales"], [made])

    def _constant(self, value: float) -> str:
        return self._constants.add(f"constant_{value:.6g}", np.float32(value))

    def _zero(self, step: int) -> str:
        return self._constants.add(f"zero_{step}", np.uint8(step))

    def _last_axis(self) -> str:
        return self._constants.add("last_axis", np.array([-1], np.int64))


def column_steps(ranges: ColumnRanges) -> _Columns:
    """Return steps that cover the widened ranges.

    A column of small numbers gets larger steps than it needs: otherwise the weights, which take the
    scales over, would range as widely as the columns do.
    """
    middle, half = (ranges.high + ranges.low) / 2, (ranges.high - ranges.low) / 2 * _WIDENED
    scales = np.maximum(half / 127, _TINY)
    scales = np.maximum(scales, np.sqrt(scales.mean() * scales))
    return _Columns(scales, 127.5 - middle / scales)


def int8_columns(weights: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return (inner, outer) weights as int8 steps and the scale (outer,) of each column."""
    scales = np.maximum(np.abs(weights).max(axis=0), _TINY).astype(np.float32) / np.float32(127)
    return np.clip(np.rint(weights / scales), -127, 127).astype(np.int8), scales


def is_product(node: NodeProto, constants: Constants) -> bool:
    """True for a matrix product with constant weights (inner, outer)."""
    return node.op_type == "MatMul" and constants.rank(node.input[1]) == 2


def made_by_kind(name: str, made_by: Mapping[str, NodeProto]) -> str:
    """Return the operator that made a value, not counting the Reshape that makes rows of it."""
    node = made_by.get(name)
    if node is not None and node.op_type == "Reshape":
        node = made_by.get(node.input[0])
    return "" if node is None else node.op_type
