"""Small tools to rewrite an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

_INLINE_BYTES = 1_500_000_000  # a protobuf file holds 2 GB


class Constants:
    """The initializers of a graph by name."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._protos = {proto.name: proto for proto in graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self._protos

    def rank(self, name: str) -> int | None:
        """Return the number of dimensions of a constant; None for what is no constant."""
        return len(self._protos[name].dims) if name in self._protos else None

    def array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = numpy_helper.to_array(self._protos[name])
        return array

    def add(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add an initializer unless there is one of that name; return the name."""
        if name not in self._protos:
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
            self._protos[name] = self._graph.initializer[-1]
        return name


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each value."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Return the node that makes each value."""
    return {name: node for node in graph.node for name in node.output}


def replace_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Give the graph these nodes; what leads to no output goes, and so do the shapes of inner values."""
    wanted = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    initializers = [proto for proto in graph.initializer if proto.name in wanted]
    del graph.node[:], graph.value_info[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def with_names(node: NodeProto, inputs: Sequence[str], output: str) -> NodeProto:
    """Return a copy of a node with one output that reads and makes other values."""
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.append(output)
    return copy


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def opset_version(model: ModelProto) -> int:
    """Return the version of the standard operators that the graph is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def save_model(model: ModelProto, path: Path) -> None:
    """Write a graph; weights that a protobuf file cannot hold go into one file beside it."""
    large = sum(len(proto.raw_data) for proto in model.graph.initializer) > _INLINE_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}_data" if large else None)
    if large:  # saving left references in place of the weights
        onnx.load_external_data_for_model(model, str(path.parent))
