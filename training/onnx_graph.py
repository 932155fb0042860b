"""A transformer as an ONNX graph: token ids in, token states out. Pooling and the rest stay outside."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from embedsvc.encoders.pytorch import load_modules
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder

OPSET = 18
_INLINE_BYTES = 1_500_000_000  # a protobuf file holds 2 GB; larger weights go beside it


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
    model = _TokenStates(load_modules(folder, torch.device("cpu"))[0]).eval()
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    ids = torch.ones(3, 8, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # no torchvision
    try:
        # The exporter warns about its own internals; the parity check is what counts.
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (ids, mask),
                str(path),
                input_names=["input_ids", "attention_mask"],
                output_names=["last_hidden_state"],
                dynamic_shapes={"input_ids": free, "attention_mask": free},
                dynamo=True,
                external_data=weight_bytes > _INLINE_BYTES,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder.path} cannot be exported to ONNX: {reason}") from error
