"""What follows the transformer, in numpy: pooling, then Dense and Normalize modules in any order."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, Module, read_tensors
from embedsvc.pooling import pool_states, read_pooling

Vectors = NDArray[np.float32]
_erf = np.frompyfunc(math.erf, 1, 1)

ACTIVATIONS: dict[str, Callable[[Vectors], Vectors]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
    "Sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "GELU": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(np.float32)),
}


class Head:
    """The modules of a folder after its transformer, without the Normalize at the end."""

    def __init__(self, folder: ModelFolder) -> None:
        if not folder.head or folder.head[0].kind != "Pooling":
            found = folder.head[0].kind if folder.head else "nothing"
            raise ModelError(f"{folder.path}: Pooling expected after the transformer, found {found}")
        self._pooling = read_pooling(folder.head[0])
        self._steps = [_step(module) for module in folder.head[1:]]

    def __call__(self, states: Vectors, mask: NDArray[np.int64], prompt: NDArray[np.int64]) -> Vectors:
        """Return (n, dimension) from states (n, t, dim), mask (n, t) and leading prompt tokens (n,)."""
        vectors = pool_states(states, mask, self._pooling, prompt)
        for step in self._steps:
            vectors = step(vectors)
        return vectors


def _step(module: Module) -> Callable[[Vectors], Vectors]:
    reads = module.config.get("module_input_name", "sentence_embedding")
    if module.kind not in ("Dense", "Normalize", "Dropout") or reads != "sentence_embedding":
        raise ModelError(
            f"{module.folder}: {module.kind} on {reads!r} cannot be computed without torch; use runtime torch"
        )
    if module.kind == "Dense":
        return _dense(module)
    return _unit_rows if module.kind == "Normalize" else ACTIVATIONS["Identity"]


def _unit_rows(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def _dense(module: Module) -> Callable[[Vectors], Vectors]:
    name = str(module.config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = ACTIVATIONS.get(name.rsplit(".", 1)[-1]) if name.startswith("torch.nn.") else None
    if activation is None:
        raise ModelError(
            f"{module.folder}: activation {name!r} is not supported; known are {', '.join(ACTIVATIONS)}"
        )
    path = module.folder / "model.safetensors"
    tensors = {key: np.asarray(value, np.float32) for key, value in read_tensors(path).items()}
    weight = _matrix(tensors, "linear.weight", path)
    bias = tensors.get("linear.bias", np.zeros(1, np.float32))
    project = _residual(module, tensors, path) if module.config.get("use_residual") else None

    def dense(vectors: Vectors) -> Vectors:
        out = activation(vectors @ weight.T + bias)
        return out if project is None else out + project(vectors)

    return dense


def _residual(module: Module, tensors: dict[str, Vectors], path: Path) -> Callable[[Vectors], Vectors]:
    if module.config.get("in_features") == module.config.get("out_features"):
        return ACTIVATIONS["Identity"]
    weight = _matrix(tensors, "residual.weight", path)
    return lambda vectors: vectors @ weight.T


def _matrix(tensors: dict[str, Vectors], name: str, path: Path) -> Vectors:
    if name not in tensors or tensors[name].ndim != 2:
        raise ModelError(f"{path} has no matrix {name!r}; it has {sorted(tensors)}")
    return tensors[name]
