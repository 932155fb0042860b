"""A cross-encoder in torch, on a processor or a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.cpu import effective_cpus
from embedsvc.encoders.pairs import PairBatch
from embedsvc.encoders.pytorch import torch_device
from embedsvc.errors import EmbedsvcError, MissingExtraError, ModelError
from embedsvc.reranker_folder import RerankerFolder

try:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging
except ImportError as error:
    raise MissingExtraError("running a reranker with torch", "torch") from error


class CrossTorchRuntime:
    """A transformers classifier in float32. Safe to call from several threads."""

    name = "torch"

    def __init__(self, folder: RerankerFolder, device: str | None = None) -> None:
        torch.set_num_threads(min(torch.get_num_threads(), effective_cpus()))
        self._folder = folder
        self._device = torch_device(device)
        self.batch_tokens = 2048 if self._device.type == "cpu" else 65_536
        self._model = _load(folder).to(self._device).eval()

    def logits(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return the model's answer to each pair, (n, labels), before the activation."""
        values = {"input_ids": batch.ids, "attention_mask": batch.mask}
        if self._folder.takes_types:
            values["token_type_ids"] = batch.types
        try:
            with torch.inference_mode():
                on_device = {name: torch.from_numpy(rows).to(self._device) for name, rows in values.items()}
                logits: NDArray[np.float32] = self._model(**on_device).logits.float().cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise EmbedsvcError(
                f"{self._folder.path} failed in torch on a batch of {batch.ids.shape}: {error}"
            ) from error
        return logits


def _load(folder: RerankerFolder) -> Any:
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(folder.model.modules[0].folder),
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds for a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder.path} cannot be opened by transformers: {reason}") from error
    if report["missing_keys"]:  # transformers makes random numbers of them
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"{folder.path} has no weights for {names}; its scores would be chance")
    return model
