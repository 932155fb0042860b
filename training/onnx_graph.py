"""A transformer as an ONNX graph: token ids in, token states out. Pooling and the rest stay outside."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch

from embedsvc.encoders.pytorch import load_modules
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder
from training.onnx_attention import split_heads_inside
from training.onnx_edit import save_model
from training.onnx_rows import work_on_rows

OPSET = 23  # the first with an operator for attention


class _TokenStates(torch.nn.Module):
    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = self.transformer({"input_ids": input_ids, "attention_mask": attention_mask})
        states: torch.Tensor = features["token_embeddings"]
        return states


def write_graph(folder: ModelFolder, path: Path) -> None:
    """Write the folder's transformer to ``path``; batch and sequence length stay free."""
    model = _exported(folder)
    split_heads_inside(model)
    work_on_rows(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)


def _exported(folder: ModelFolder) -> onnx.ModelProto:
    model = _TokenStates(load_modules(folder, torch.device("cpu"))[0]).eval()
    ids = torch.ones(3, 8, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # no torchvision
    try:
        # The exporter warns about its own internals; the parity check is what counts.
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (ids, mask),
                input_names=["input_ids", "attention_mask"],
                output_names=["last_hidden_state"],
                dynamic_shapes={"input_ids": free, "attention_mask": free},
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder.path} cannot be exported to ONNX: {reason}") from error
    assert program is not None  # only a call with a path returns none
    return program.model_proto
