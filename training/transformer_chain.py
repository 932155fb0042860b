"""A transformer opened for training: the modules of its folder, and how its texts are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers.utils import logging

from embedsvc.encoders.sequence import SequenceInputs, check_vocabulary
from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import ModelFolder, open_model_folder
from training.lora import add_lora, freeze
from training.model_config import ModelConfig
from training.student import ReadyStudent


@dataclass(frozen=True)
class Chain:
    """``model`` ends with Normalize; ``inputs`` knows its tokens, as every runtime that serves it does.

    ``head`` is the linear layer that the recipe has added, ``adapters`` peft's view of the transformer,
    where it is taught with LoRA.
    """

    model: SentenceTransformer
    folder: ModelFolder
    inputs: SequenceInputs
    head: Any = None
    adapters: Any = None

    @cached_property
    def modules(self) -> list[Any]:
        """The modules without the Normalize at the end: losses take vectors of any norm."""
        return modules_of(self.model)

    @property
    def transformer(self) -> Any:
        """The transformers model inside."""
        return self.modules[0].model

    @cached_property
    def dimension(self) -> int:
        """The length of the vectors."""
        return int(self.model.get_embedding_dimension())

    @property
    def mask(self) -> int | None:
        """The id of the token that hides another; None where the tokenizer has none."""
        token = self.model.tokenizer.mask_token_id
        return None if token is None else int(token)

    def save(self, folder: Path, adapters: Path) -> None:
        """Write the model; adapters are written by themselves first, and then merged for good."""
        if self.adapters is not None:
            self.adapters.save_pretrained(str(adapters))
            self.modules[0].model = self.adapters.merge_and_unload()
        self.model.save_pretrained(str(folder), create_model_card=False)

    def check_ids(self, ids: NDArray[np.int64]) -> None:
        """Raise ModelError for a token that the model has no vector for."""
        check_vocabulary(ids, self.transformer.config.vocab_size, self.folder)

    @property
    def ready(self) -> ReadyStudent:
        """What a run has to know of it before the data are read."""
        return ReadyStudent(
            self.tokenize,
            self.dimension,
            self.inputs.max_tokens,
            self.folder.fingerprint,
        )

    @property
    def new_weights(self) -> set[int]:
        """The ids of the weights of the linear layer that the recipe has added."""
        return {id(weight) for weight in self.head.parameters()} if self.head is not None else set()

    @cached_property
    def prompt(self) -> str:
        """What stands before every text."""
        return str(self.model.prompts.get(self.model.default_prompt_name) or "")

    @cached_property
    def prompt_length(self) -> dict[str, int]:
        """The tokens of the prompt, as a pooling wants to know them that leaves them out."""
        if not self.prompt:
            return {}
        return {"prompt_length": len(self.inputs.prefix) + len(self.inputs.tokenize([self.prompt])[0])}

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text behind the prompt, without special tokens."""
        return self.inputs.tokenize([self.prompt + text for text in texts])


def modules_of(model: SentenceTransformer) -> list[torch.nn.Module]:
    """Return the modules without Normalize."""
    return [module for module in model.children() if not isinstance(module, Normalize)]


def open_chain(path: Path, config: ModelConfig, *, seed: int) -> Chain:
    """Open a sentence-transformers folder, or a plain transformer, which gets mean pooling.

    Raises NotFoundError or ModelError for a folder that cannot be opened, InvalidInputError for a recipe
    that does not fit it.
    """
    folder = open_model_folder(path)
    if folder.is_static:
        raise InvalidInputError(f"model.transformer: {path} is a static model, not a transformer")
    logging.disable_progress_bar()
    torch.manual_seed(seed)  # what the folder has no weights for starts at random
    try:
        model = SentenceTransformer(
            str(path),
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
    except Exception as error:  # transformers raises many kinds for a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path} cannot be opened by sentence-transformers: {reason}") from error
    head = _head(int(model.get_embedding_dimension()), config)
    chain = Chain(_completed(model, config, head), folder, SequenceInputs(folder), head)
    _check_prefixes(config, chain.dimension)
    if config.frozen_layers is not None:
        freeze(chain.transformer, config.frozen_layers)
    if config.lora is not None:
        chain = replace(chain, adapters=add_lora(chain.transformer, config.lora, seed=seed))
    return chain


def _completed(model: SentenceTransformer, config: ModelConfig, head: Any) -> SentenceTransformer:
    """Set the pooling that the recipe asks for, add the linear layer to its dimension, and Normalize."""
    modules = modules_of(model)
    if config.pooling is not None:
        modules = [_repooled(module, config.pooling) for module in modules]
    modules += [head] if head is not None else []
    prompts, name = dict(model.prompts), model.default_prompt_name
    if config.prompt is not None:
        prompts["default"], name = config.prompt, "default"
    modules.append(Normalize())
    return SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=name)


def _head(width: int, config: ModelConfig) -> Any:
    if config.dimension in (None, width):
        return None
    return Dense(width, config.dimension, bias=False, activation_function=None)


def _repooled(module: Any, pooling: str) -> Any:
    if not isinstance(module, Pooling) or module.pooling_mode == pooling:
        return module
    if module.pooling_output_dimension != module.embedding_dimension:
        raise InvalidInputError(f"model.pooling = {pooling!r}: the folder joins several poolings")
    return Pooling(module.embedding_dimension, pooling, include_prompt=module.include_prompt)


def _check_prefixes(config: ModelConfig, dimension: int) -> None:
    if any(size >= dimension for size in config.matryoshka):
        raise InvalidInputError(
            f"model.matryoshka sizes {config.matryoshka} must be smaller than the student's dimension "
            f"{dimension}"
        )
