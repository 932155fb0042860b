"""Rewrite a graph so that whatever works token by token does so on one (tokens, width) matrix.

Exporters keep (batch, sequence, width) everywhere. On a matrix ONNX Runtime joins a product with its
bias, and int8 can give each token its own scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from training.onnx_edit import Constants, attribute, producers, replace_nodes, with_names

_UNARY = {"Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "Sqrt", "Neg", "Identity"}
_BINARY = {"Add", "Sub", "Mul", "Div", "Pow"}


@dataclass(frozen=True)
class _Rows:
    """A value as a matrix, and the value whose leading dimensions its rows stand for."""

    matrix: str
    origin: str
    width: int


def work_on_rows(model: ModelProto) -> None:
    """Rewrite in place; what is not understood keeps its shape, everything keeps its values."""
    replace_nodes(model.graph, list(_Rewriting(model.graph).nodes()))


class _Rewriting:
    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._constants = Constants(graph)
        self._made_by = producers(graph)
        self._rows: dict[str, _Rows] = {}
        self._origins: list[str] = []  # oldest first
        self._whole: set[str] = set()  # row values that exist in their original shape too

    def nodes(self) -> Iterator[NodeProto]:
        for node in self._graph.node:
            if node.op_type == "MatMul" and self._constants.rank(node.input[1]) == 2:
                inner, outer = self._constants.array(node.input[1]).shape
                yield from self._flattened(node.input[0], inner)
                yield self._on_rows(node, outer)
            elif self._is_row_wise(node):
                width = next(self._rows[name].width for name in node.input if name in self._rows)
                yield self._on_rows(node, width)
            elif node.op_type == "Reshape" and node.input[0] in self._rows and self._is_absolute(node):
                yield with_names(node, [self._rows[node.input[0]].matrix, node.input[1]], node.output[0])
            else:
                yield from self._restored(node.input)
                yield node
        yield from self._restored(value.name for value in self._graph.output)

    def _on_rows(self, node: NodeProto, width: int) -> NodeProto:
        origins = {self._rows[name].origin for name in node.input if name in self._rows}
        inputs = [self._rows[name].matrix if name in self._rows else name for name in node.input]
        matrix = f"{node.output[0]}/rows"
        self._rows[node.output[0]] = _Rows(matrix, min(origins, key=self._origins.index), width)
        return with_names(node, inputs, matrix)

    def _flattened(self, name: str, width: int) -> Iterator[NodeProto]:
        if name in self._rows:
            return
        maker = self._made_by.get(name)
        source = maker.input[0] if maker is not None and maker.op_type == "Reshape" else name
        shape = self._constants.add(f"rows_of_{width}", np.array([-1, width], np.int64))
        self._rows[name] = _Rows(f"{name}/rows", name, width)
        self._origins.append(name)
        self._whole.add(name)
        yield helper.make_node("Reshape", [source, shape], [f"{name}/rows"])

    def _restored(self, names: Iterable[str]) -> Iterator[NodeProto]:
        """Give row values their original shape, for a node that needs it."""
        for name in names:
            if name not in self._rows or name in self._whole:
                continue
            rows = self._rows[name]
            self._whole.add(name)
            width = self._constants.add(f"width_{rows.width}", np.array([rows.width], np.int64))
            yield helper.make_node("Shape", [rows.origin], [f"{name}/leading"], end=-1)
            yield helper.make_node("Concat", [f"{name}/leading", width], [f"{name}/shape"], axis=0)
            yield helper.make_node("Reshape", [rows.matrix, f"{name}/shape"], [name])

    def _is_row_wise(self, node: NodeProto) -> bool:
        if node.op_type in _UNARY or node.op_type == "LayerNormalization":
            last = attribute(node, "axis", -1) == -1
            return node.input[0] in self._rows and len(node.output) == 1 and last
        widths = {self._rows[name].width for name in node.input if name in self._rows}
        return node.op_type in _BINARY and len(widths) == 1 and self._fit(node.input, *widths)

    def _fit(self, names: Sequence[str], width: int) -> bool:
        """True when all are row values, or constants that mean the same beside a matrix as beside a stack."""
        return all(
            name in self._rows
            or (name in self._constants and self._constants.array(name).shape in ((), (1,), (width,)))
            for name in names
        )

    def _is_absolute(self, node: NodeProto) -> bool:
        """True for a Reshape whose target copies no dimension of its input."""
        if attribute(node, "allowzero", 0) == 1:
            return True
        return node.input[1] in self._constants and 0 not in self._constants.array(node.input[1])
