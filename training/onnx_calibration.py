"""From a float32 graph to an int8 one; its fixed ranges are measured on sample texts. Needs no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from embedsvc.documents import read_documents
from embedsvc.encoder import PreparedText
from embedsvc.encoders.onnx_runtime import graph_inputs
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.model_folder import BUNDLED, ModelFolder, read_json
from training.onnx_edit import save_model
from training.onnx_int8 import ColumnRanges, bounded_inputs, use_int8
from training.onnx_rows import work_on_rows

SAMPLE_FILE = BUNDLED.parent / "sample" / "documents.jsonl"  # everyday passages in sixteen languages
_MAX_TOKENS = 512  # of a sample text, where the model has no limit
_RANDOM_TEXTS, _RANDOM_TOKENS = 100, 32


def write_int8(source: Path, path: Path, folder: ModelFolder) -> None:
    """Write the float32 graph ``source`` to ``path`` with int8 products; the folder has the tokenizer."""
    model = onnx.load(source)
    work_on_rows(model)
    use_int8(model, column_ranges(model, bounded_inputs(model), folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)


def column_ranges(model: ModelProto, names: Sequence[str], folder: ModelFolder) -> dict[str, ColumnRanges]:
    """Run the graph on the sample texts; return the range of each column of the named (…, width) values."""
    session = _session_with_outputs(model, names)
    inputs = SequenceInputs(folder)
    wanted = [node.name for node in session.get_inputs()]
    ranges: dict[str, ColumnRanges] = {}
    for text in _sample(folder, inputs):
        values = graph_inputs(inputs.padded([text]))
        outputs = session.run(list(names), {name: values[name] for name in wanted})
        for name, output in zip(names, outputs, strict=True):
            rows = np.asarray(output, np.float64).reshape(-1, output.shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            old = ranges.get(name, ColumnRanges(low, high))
            ranges[name] = ColumnRanges(np.minimum(old.low, low), np.maximum(old.high, high))
    return ranges


def _session_with_outputs(model: ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    own = len(model.graph.output)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.onnx"
        save_model(model, path)
        del model.graph.output[own:]
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _sample(folder: ModelFolder, inputs: SequenceInputs) -> Iterator[PreparedText]:
    """Give the sample texts, each after one of the model's prompts in turn, and words in random order.

    The random words make the ranges hold for the parts of the vocabulary that no sample text uses.
    """
    limit = inputs.max_tokens or _MAX_TOKENS
    prompts = sorted({"", *folder.prompts.values()})
    texts = [document.text for document in read_documents(SAMPLE_FILE)]
    for ids in inputs.tokenize([prompts[place % len(prompts)] + text for place, text in enumerate(texts)]):
        yield PreparedText(ids[:limit])
    rows = int(read_json(folder.modules[0].folder / "config.json")["vocab_size"])
    random = np.random.default_rng(0)
    for ids in random.integers(rows, size=(_RANDOM_TEXTS, min(limit, _RANDOM_TOKENS))).tolist():
        yield PreparedText(ids)
