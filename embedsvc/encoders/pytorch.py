"""The torch runtime: any sentence-transformers model, on a processor or a GPU. Nothing else imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.cpu import effective_cpus
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.encoders.static_table import StaticTableRuntime
from embedsvc.errors import EmbedsvcError, InvalidInputError, MissingExtraError, ModelError
from embedsvc.model_folder import ModelFolder
from embedsvc.runtime import PreparedText

try:
    import torch
    from sentence_transformers import SentenceTransformer
    from torch.nn.functional import embedding_bag
    from transformers.utils import logging
except ImportError as error:
    raise MissingExtraError("running a model with torch", "torch") from error


class TorchRuntime:
    """A sentence-transformers model in float32; tokens and limits are ours, as in every runtime."""

    name = "torch"
    workers = 1  # torch spreads each batch over the processors itself
    pads = True

    def __init__(self, folder: ModelFolder, device: str | None = None) -> None:
        torch.set_num_threads(min(torch.get_num_threads(), effective_cpus()))
        self._path = folder.path
        self._device = torch_device(device)
        self._core = (
            _TableCore(folder, self._device) if folder.is_static else _ChainCore(folder, self._device)
        )
        self.max_tokens = self._core.inputs.max_tokens
        self.special_tokens = self._core.inputs.special_tokens
        self.batch_tokens = 2048 if self._device.type == "cpu" else 65_536
        self.dimension = int(self.embed([PreparedText(self.tokenize(["a"])[0][: self.max_tokens])]).shape[1])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        return self._core.inputs.tokenize(texts)

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors, before the final normalisation."""
        try:
            with torch.inference_mode():
                vectors: NDArray[np.float32] = self._core.vectors(batch).float().cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise EmbedsvcError(f"{self._path} failed in torch on {len(batch)} texts: {error}") from error
        return vectors

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return the states of each text, one text at a time: nothing is padded."""
        try:
            with torch.inference_mode():
                return [self._core.states(text).float().cpu().numpy() for text in batch]
        except (RuntimeError, IndexError) as error:
            raise EmbedsvcError(f"{self._path} failed in torch on {len(batch)} texts: {error}") from error


class _ChainCore:
    """The chain of modules up to, but without, the Normalize at the end."""

    def __init__(self, folder: ModelFolder, device: torch.device) -> None:
        self.inputs = SequenceInputs(folder)
        self._device = device
        self._modules = load_modules(folder, device)

    def vectors(self, batch: Sequence[PreparedText]) -> torch.Tensor:
        padded = self.inputs.padded(batch)
        vectors: list[tuple[NDArray[np.intp], torch.Tensor]] = []
        for length in np.unique(padded.prompt):  # sentence-transformers takes one prompt length per batch
            rows = np.flatnonzero(padded.prompt == length)
            features: dict[str, Any] = {
                "input_ids": torch.from_numpy(padded.ids[rows]).to(self._device),
                "attention_mask": torch.from_numpy(padded.mask[rows]).to(self._device),
            }
            if length:
                features["prompt_length"] = int(length)
            for module in self._modules:
                features = module(features)
            vectors.append((rows, features["sentence_embedding"]))
        order = np.argsort(np.concatenate([rows for rows, _ in vectors]))
        return torch.cat([part for _, part in vectors])[torch.from_numpy(order).to(self._device)]

    def states(self, text: PreparedText) -> torch.Tensor:
        padded = self.inputs.padded([text])
        features = {
            "input_ids": torch.from_numpy(padded.ids).to(self._device),
            "attention_mask": torch.from_numpy(padded.mask).to(self._device),
        }
        states: torch.Tensor = self._modules[0](features)["token_embeddings"][0]
        return states


class _TableCore:
    """A static table as an embedding bag."""

    def __init__(self, folder: ModelFolder, device: torch.device) -> None:
        self.inputs = StaticTableRuntime(folder)
        self._table = torch.from_numpy(self.inputs.table).to(device)

    def vectors(self, batch: Sequence[PreparedText]) -> torch.Tensor:
        ids = torch.tensor(list(chain.from_iterable(text.ids for text in batch)), dtype=torch.int64)
        begins = np.cumsum([0, *(len(text.ids) for text in batch)])[:-1]
        device = self._table.device
        return embedding_bag(ids.to(device), self._table, torch.from_numpy(begins).to(device), mode="mean")

    def states(self, text: PreparedText) -> torch.Tensor:
        return self._table[torch.tensor(text.ids, dtype=torch.int64, device=self._table.device)]


def load_modules(folder: ModelFolder, device: torch.device) -> list[torch.nn.Module]:
    """Return the sentence-transformers modules of a folder in float32, without the Normalize at the end."""
    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder.path),
            device=str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
    except Exception as error:  # transformers raises many kinds for a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder.path} cannot be opened by sentence-transformers: {reason}") from error
    model.eval()
    modules: list[torch.nn.Module] = list(model.children())
    return modules[: 1 + len(folder.head)]


def torch_device(wanted: str | None) -> torch.device:
    """Return the device of this name (None: the GPU if there is one); raise InvalidInputError."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(f"device {wanted!r} cannot be used: {reason}", param="device") from error
    return device
