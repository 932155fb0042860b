"""The ONNX runtime: a transformer as an ONNX graph, pooled in numpy. No torch."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from embedsvc.cpu import effective_cpus, multiplies_int8_exactly
from embedsvc.encoders.head import Head
from embedsvc.encoders.sequence import PaddedBatch, SequenceInputs
from embedsvc.errors import EmbedsvcError, ModelError
from embedsvc.model_folder import ModelFolder, Precision
from embedsvc.runtime import PreparedText

_STATE_OUTPUTS = ("last_hidden_state", "token_embeddings", "hidden_states")
_VECTOR_OUTPUTS = ("sentence_embedding",)  # the whole chain is in the graph
_WHOLE_BATCH_SCALES = (b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul")
_SLOWER_FUSED = ["SkipLayerNormFusion"]  # the joined kernel takes seven times as long as its parts
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class OnnxRuntime:
    """A transformer in ONNX Runtime on the processor. Safe to call from several threads."""

    name = "onnx"
    workers = 1
    pads = True
    batch_tokens = 512  # on a processor larger batches are not faster, only more padded

    def __init__(
        self, folder: ModelFolder, *, precision: Precision = "float32", threads: int | None = None
    ) -> None:
        """Open the folder's file of this precision; threads for one batch (default: all that there are)."""
        path = folder.onnx_files.get(precision)
        if path is None:
            raise ModelError(
                f"{folder.path} has no {precision} ONNX file; "
                f"make one: embedsvc export {folder.path} --onnx {precision} --out DIR"
            )
        self._path = path
        self._alone = depends_on_batch(path)
        self._inputs = SequenceInputs(folder)
        self.max_tokens = self._inputs.max_tokens
        self.special_tokens = self._inputs.special_tokens
        self._session = open_session(self._path, threads or effective_cpus())
        self._wanted = [known_input(node.name, self._path) for node in self._session.get_inputs()]
        self._output = _choose_output(self._session, self._path)
        self._head = None if self._output in _VECTOR_OUTPUTS else Head(folder)
        self.dimension = self._probe_dimension()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        return self._inputs.tokenize(texts)

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors, before the final normalisation.

        A vector never depends on the rest of the batch: a graph that would mix them runs one text at a time.
        """
        if self._alone and len(batch) > 1:
            return np.concatenate([self.embed([text]) for text in batch])
        padded = self._inputs.padded(batch)
        output = self._run(padded)
        return output if self._head is None else self._head(output, padded.mask, padded.prompt)

    def _run(self, padded: PaddedBatch) -> NDArray[np.float32]:
        values = graph_inputs(padded)
        try:
            outputs = self._session.run([self._output], {name: values[name] for name in self._wanted})
        except Exception as error:  # onnxruntime's own errors share no base class
            raise EmbedsvcError(f"{self._path} failed on a batch of {padded.ids.shape}: {error}") from error
        return np.asarray(outputs[0], np.float32)

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return the states of each text, one text at a time: nothing is padded."""
        if self._head is None:
            raise ModelError(f"{self._path} gives vectors of whole texts only, not of tokens")
        return [self._run(self._inputs.padded([text]))[0] for text in batch]

    def _probe_dimension(self) -> int:
        """Run one short text: the width is known, and a graph that cannot run is found when it is opened."""
        try:
            vectors = self.embed([PreparedText(self._inputs.tokenize(["a"])[0][: self.max_tokens])])
        except ModelError:
            raise
        except (EmbedsvcError, ValueError, IndexError) as error:
            raise ModelError(f"{self._path} cannot encode a text: {error}") from error
        if vectors.ndim != 2 or len(vectors) != 1:
            raise ModelError(f"{self._path}: output {self._output!r} gave shape {vectors.shape} for one text")
        return int(vectors.shape[1])


def graph_inputs(padded: PaddedBatch) -> dict[str, NDArray[np.int64]]:
    """Return everything that an encoder graph may ask for, by name; each is (n, t)."""
    places = np.arange(padded.ids.shape[1], dtype=np.int64)
    return {
        "input_ids": padded.ids,
        "attention_mask": padded.mask,
        "token_type_ids": np.zeros_like(padded.ids),
        "position_ids": np.broadcast_to(places, padded.ids.shape),
    }


def depends_on_batch(path: Path) -> bool:
    """True for a graph that gives the activations of a whole batch one scale: others' dynamic int8."""
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file, which the session will refuse
            return False
        with content:
            return any(content.find(kind) >= 0 for kind in _WHOLE_BATCH_SCALES)


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """Return the graph ready to run, each call on so many threads; raise ModelError naming the file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads keep every core busy for a second after each request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI the fast kernel for int8 overflows; the exact one is no faster than float32.
    exact = "0" if multiplies_int8_exactly() else "1"
    options.add_session_config_entry("session.x64quantprecision", exact)
    options.enable_mem_pattern = False  # one plan is kept for every shape ever seen
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER_FUSED
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ModelError(f"{path} cannot be opened as an ONNX model: {error}") from error


def known_input(name: str, path: Path) -> str:
    """Return the name of an input that `graph_inputs` gives; raise ModelError for another."""
    if name not in _INPUTS:
        raise ModelError(f"{path} asks for the input {name!r}; known are {', '.join(_INPUTS)}")
    return name


def _choose_output(session: ort.InferenceSession, path: Path) -> str:
    names = [node.name for node in session.get_outputs()]
    for name in (*_STATE_OUTPUTS, *_VECTOR_OUTPUTS):
        if name in names:
            return name
    known = ", ".join((*_STATE_OUTPUTS, *_VECTOR_OUTPUTS))
    raise ModelError(f"{path} has the outputs {', '.join(names)}; one of {known} expected")
