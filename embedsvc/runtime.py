"""What runs a model: the `Runtime` protocol, and the one switch between its implementations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError, MissingExtraError, ModelError
from embedsvc.model_folder import ModelFolder, Precision

RuntimeName = Literal["auto", "static", "onnx", "torch"]


@dataclass(frozen=True)
class PreparedText:
    """One tokenized text: ids without special tokens; the first ``prompt_tokens`` of them are the prompt."""

    ids: list[int]
    prompt_tokens: int = 0


class Runtime(Protocol):
    """What a runtime must provide; one file each under `encoders`."""

    name: str
    dimension: int
    max_tokens: int | None  # limit for a text without special tokens; None = no limit
    special_tokens: int  # added to each text by `embed`, counted in usage
    batch_tokens: int  # default padded-token budget of one batch
    pads: bool  # texts of a batch are padded to the longest
    workers: int  # calls of `embed` worth running side by side

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors, before the final normalisation."""

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return (tokens, dim) for each text: its tokens' vectors before pooling, special ones included.

        Raises ModelError when the model has vectors of whole texts only.
        """


@dataclass(frozen=True)
class RuntimeOptions:
    """Which runtime opens a folder, and how; ``threads`` is per call of `embed` (None: all processors)."""

    runtime: RuntimeName = "auto"
    device: str | None = None
    precision: Precision = "float32"
    threads: int | None = None


def open_runtime(folder: ModelFolder, options: RuntimeOptions) -> Runtime:
    """Open a model folder; raise ModelError or MissingExtraError naming what to install."""
    chosen = choose_runtime(folder, options)
    if chosen == "static":
        from embedsvc.encoders.static_table import StaticTableRuntime

        return StaticTableRuntime(folder)
    if chosen == "onnx":
        from embedsvc.encoders.onnx_runtime import OnnxRuntime

        return OnnxRuntime(folder, precision=options.precision, threads=options.threads)
    from embedsvc.encoders.pytorch import TorchRuntime

    return TorchRuntime(folder, device=options.device)


def choose_runtime(folder: ModelFolder, options: RuntimeOptions) -> RuntimeName:
    """Return what "auto" means for this folder; raise an error for a runtime or a device that cannot be."""
    chosen = _choose(folder, options)
    if chosen != "torch" and options.device not in (None, "cpu"):
        raise InvalidInputError(
            f"device {options.device!r} is for the torch runtime; {folder.name!r} runs on {chosen}, on the "
            "processor",
            param="device",
        )
    if chosen == "torch" and options.precision != "float32":
        raise InvalidInputError(
            f"{folder.path} has no {options.precision} ONNX file; runtime onnx exports one, or: "
            f"embedsvc export {folder.path} --onnx {options.precision} --out DIR",
            param="precision",
        )
    return chosen


def _choose(folder: ModelFolder, options: RuntimeOptions) -> RuntimeName:
    wanted, has_onnx = options.runtime, options.precision in folder.onnx_files
    if wanted not in ("auto", "static", "onnx", "torch"):
        raise InvalidInputError(
            f"runtime {wanted!r} is unknown; choose auto, static, onnx or torch", param="runtime"
        )
    if wanted == "static" and not folder.is_static:
        raise ModelError(f"{folder.path} is not a static model; use runtime onnx or torch")
    if wanted != "auto":
        return wanted
    if folder.is_static:
        return "static"
    if has_onnx:
        return "onnx"
    if not torch_installed():
        raise MissingExtraError(
            f"{folder.path} has no {options.precision} ONNX file; running it with torch", "torch"
        )
    return "torch"


def torch_installed() -> bool:
    """True when the torch extra is present; torch itself is not imported."""
    return find_spec("torch") is not None and find_spec("sentence_transformers") is not None
