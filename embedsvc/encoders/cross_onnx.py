"""A cross-encoder as an ONNX graph, in ONNX Runtime on the processor. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedsvc.cpu import effective_cpus
from embedsvc.encoders.onnx_runtime import depends_on_batch, graph_inputs, known_input, open_session
from embedsvc.encoders.pairs import PairBatch
from embedsvc.encoders.sequence import PaddedBatch
from embedsvc.errors import EmbedsvcError, ModelError
from embedsvc.model_folder import Precision
from embedsvc.reranker_folder import RerankerFolder

_OUTPUTS = ("logits", "scores")


class CrossOnnxRuntime:
    """Safe to call from several threads."""

    name = "onnx"
    batch_tokens = 512  # on a processor larger batches are not faster, only more padded

    def __init__(self, folder: RerankerFolder, precision: Precision = "float32") -> None:
        """Open the folder's file of this precision, which must be there; raise ModelError."""
        self._path = folder.model.onnx_files[precision]
        self._alone = depends_on_batch(self._path)
        self._session = open_session(self._path, effective_cpus())
        self._wanted = [known_input(node.name, self._path) for node in self._session.get_inputs()]
        self._output = self._choose_output()

    def _choose_output(self) -> str:
        names = [node.name for node in self._session.get_outputs()]
        found = next((name for name in _OUTPUTS if name in names), None)
        if found is None:
            raise ModelError(
                f"{self._path} has the outputs {', '.join(names)}; a reranker's is {' or '.join(_OUTPUTS)}"
            )
        return found

    def logits(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return the model's answer to each pair, (n, labels), before the activation.

        It never depends on the rest of the batch: a graph that would mix pairs runs one at a time.
        """
        if self._alone and len(batch.ids) > 1:
            return np.concatenate([self._run(_row(batch, row)) for row in range(len(batch.ids))])
        return self._run(batch)

    def _run(self, batch: PairBatch) -> NDArray[np.float32]:
        padded = PaddedBatch(batch.ids, batch.mask, prompt=np.zeros(len(batch.ids), np.int64))
        values = graph_inputs(padded) | {"token_type_ids": batch.types}
        try:
            outputs = self._session.run([self._output], {name: values[name] for name in self._wanted})
        except Exception as error:  # onnxruntime's own errors share no base class
            raise EmbedsvcError(f"{self._path} failed on a batch of {batch.ids.shape}: {error}") from error
        return np.asarray(outputs[0], np.float32)


def _row(batch: PairBatch, row: int) -> PairBatch:
    """Return one pair of a batch, without the padding that others needed."""
    length = int(batch.mask[row].sum())
    part = np.s_[row : row + 1, :length]
    return PairBatch(batch.ids[part], batch.mask[part], batch.types[part])
