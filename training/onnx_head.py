"""Pooling and what follows it as part of the graph: for users who have nothing but an ONNX runtime.

The graph keeps its token states, which our own runtime pools, and gets a second output,
``sentence_embedding`` (batch, dimension), with all modules of the folder, Normalize included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper

from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import ModelFolder, Module, read_tensors
from embedsvc.pooling import read_pooling
from training.onnx_edit import Constants, opset_version, save_model

STATES, MASK, VECTORS = "last_hidden_state", "attention_mask", "sentence_embedding"
_OLDEST_OPSET = 13  # the first whose sums take their axes as an input


def add_head(path: Path, folder: ModelFolder) -> None:
    """Add the output ``sentence_embedding`` to the graph in ``path``, from the modules of the folder.

    Raises InvalidInputError for a model that pools without its prompt, whose length no graph knows, and
    ModelError for a graph without token states or mask, or a module that only torch computes.
    """
    model = onnx.load(path)
    graph = model.graph
    names = {value.name for value in [*graph.input, *graph.output]}
    if not {STATES, MASK} <= names or opset_version(model) < _OLDEST_OPSET:
        raise ModelError(
            f"{path.name} has {', '.join(sorted(names))} in opset {opset_version(model)}; to pool in the "
            f"graph, {STATES} and {MASK} in {_OLDEST_OPSET} or later are needed"
        )
    head = _Head(graph, opset_version(model))
    vectors = head.pooled(folder.head[0])
    for module in folder.modules[2:]:
        vectors = head.after(module, vectors)
    head.add("Identity", [vectors], VECTORS)
    graph.output.append(helper.make_tensor_value_info(VECTORS, TensorProto.FLOAT, ["batch", "dimension"]))
    onnx.checker.check_model(model)
    save_model(model, path)


class _Head:
    def __init__(self, graph: GraphProto, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._constants = Constants(graph)
        self._count = 0

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        """Add a node with one output; return its name."""
        if not output:
            self._count += 1
            output = f"head/{self._count}_{kind}"
        self._graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        return self._constants.add(f"head/{name}", np.asarray(value, dtype))

    def _axis(self, axis: int) -> str:
        return self._constant(f"axis{axis}", [axis], np.int64)

    def pooled(self, module: Module) -> str:
        """Add what `embedsvc.pooling` computes."""
        pooling = read_pooling(module)
        if not pooling.include_prompt:
            raise InvalidInputError(
                f"{module.folder} leaves the prompt out of its pooling: a graph does not know how long it is",
                param="pooled",
            )
        parts = [_MODES[mode](self) for mode in pooling.modes]
        return parts[0] if len(parts) == 1 else self.add("Concat", parts, axis=1)

    def after(self, module: Module, vectors: str) -> str:
        """Add a module that takes and gives vectors."""
        if module.kind == "Dropout":
            return vectors
        if module.kind == "Normalize":
            return self._normalized(vectors)
        if module.kind != "Dense":
            raise ModelError(f"{module.folder}: {module.kind} cannot be put into a graph")
        return self._dense(module, vectors)

    def _normalized(self, vectors: str) -> str:
        squares = self.add("Mul", [vectors, vectors])
        norms = self.add("Sqrt", [self.add("ReduceSum", [squares, self._axis(1)], keepdims=1)])
        return self.add("Div", [vectors, self.add("Max", [norms, self._constant("least", 1e-12)])])

    def _dense(self, module: Module, vectors: str) -> str:
        name = module.folder.name
        tensors = {
            key: np.asarray(value, np.float32)
            for key, value in read_tensors(module.folder / "model.safetensors").items()
        }
        made = self._product(vectors, tensors["linear.weight"], f"{name}/weight")
        if "linear.bias" in tensors:
            made = self.add("Add", [made, self._constant(f"{name}/bias", tensors["linear.bias"])])
        made = self._activated(made, module)
        if not module.config.get("use_residual"):
            return made
        rest = vectors
        if "residual.weight" in tensors:
            rest = self._product(vectors, tensors["residual.weight"], f"{name}/residual")
        return self.add("Add", [made, rest])

    def _product(self, vectors: str, weight: NDArray[np.float32], name: str) -> str:
        return self.add("MatMul", [vectors, self._constant(name, weight.T)])

    def _activated(self, made: str, module: Module) -> str:
        kind = str(module.config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
        if kind in ("Tanh", "Sigmoid"):
            return self.add(kind, [made])
        if kind == "GELU":
            erf = self.add("Erf", [self.add("Div", [made, self._constant("root", math.sqrt(2))])])
            half = self.add("Mul", [made, self._constant("half", 0.5)])
            return self.add("Mul", [half, self.add("Add", [erf, self._constant("one", 1.0)])])
        if kind not in ("Identity", "ReLU"):
            raise ModelError(f"{module.folder}: activation {kind!r} cannot be put into a graph")
        return made if kind == "Identity" else self.add("Relu", [made])

    def mask(self) -> str:
        """The mask (n, t) as numbers."""
        return self.add("Cast", [MASK], to=TensorProto.FLOAT)

    def counted(self, *, reverse: int) -> str:
        """The place of each token (n, t) among those of its text, from 1; 0 for padding."""
        mask = self.mask()
        axis = self._constant("count_axis", 1, np.int64)
        return self.add("Mul", [self.add("CumSum", [mask, axis], reverse=reverse), mask])

    def end(self, *, reverse: int) -> str:
        """The states of the first token, or with reverse of the last one."""
        only = self.add("Equal", [self.counted(reverse=reverse), self._constant("first", 1.0)])
        return self.summed(self.add("Cast", [only], to=TensorProto.FLOAT))

    def summed(self, weights: str) -> str:
        """The sums (n, dim) of the states, weighted with (n, t)."""
        rows = self.add("Unsqueeze", [weights, self._axis(1)])
        return self.add("Squeeze", [self.add("MatMul", [rows, STATES]), self._axis(1)])

    def total(self, weights: str) -> str:
        """The sums (n, 1) of the weights."""
        total = self.add("ReduceSum", [weights, self._axis(1)], keepdims=1)
        return self.add("Max", [total, self._constant("least_total", 1e-9)])

    def averaged(self, weights: str, *, root: bool = False) -> str:
        total = self.total(weights)
        return self.add("Div", [self.summed(weights), self.add("Sqrt", [total]) if root else total])

    def highest(self) -> str:
        """The largest number of each dimension (n, dim)."""
        kept = self.add("Cast", [self.add("Unsqueeze", [MASK, self._axis(2)])], to=TensorProto.BOOL)
        states = self.add("Where", [kept, STATES, self._constant("lowest", -np.inf)])
        if self._opset >= 18:
            return self.add("ReduceMax", [states, self._axis(1)], keepdims=0)
        return self.add("ReduceMax", [states], axes=[1], keepdims=0)


_MODES: dict[str, Callable[[_Head], str]] = {
    "cls": lambda head: head.end(reverse=0),
    "max": lambda head: head.highest(),
    "mean": lambda head: head.averaged(head.mask()),
    "mean_sqrt_len_tokens": lambda head: head.averaged(head.mask(), root=True),
    "weightedmean": lambda head: head.averaged(head.counted(reverse=0)),
    "lasttoken": lambda head: head.end(reverse=1),
}
