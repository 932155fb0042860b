"""Train low-rank matrices beside frozen weights (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from typing import Any

import torch

from embedsvc.errors import InvalidInputError, MissingExtraError
from training.model_config import LoraConfig

_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h|block|blocks)\.(\d+)\.")


def add_lora(transformer: Any, config: LoraConfig, *, seed: int) -> Any:
    """Put adapters into a transformers model, where they stay; everything else of it is frozen.

    Returns peft's view of the same model, which saves and merges the adapters. Raises InvalidInputError
    when the targets name no layer of it.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("training with LoRA", "train")
    import peft

    torch.manual_seed(seed)
    wanted = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.targets
    )
    try:
        with warnings.catch_warnings():  # peft 0.21 asks for names that transformers 5.24 has replaced
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(transformer, wanted)
    except ValueError as error:
        linear = {name.split(".")[-1] for name, part in transformer.named_modules() if _is_linear(part)}
        raise InvalidInputError(
            f"model.lora.targets = {config.targets}: {error}. Its linear layers: {', '.join(sorted(linear))}"
        ) from error


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def freeze(transformer: Any, layers: int) -> None:
    """Freeze the embeddings and the first layers; raise InvalidInputError where there are not so many."""
    numbers = {name: _layer(name) for name, _ in transformer.named_parameters()}
    last = max((number for number in numbers.values() if number is not None), default=-1)
    if layers > last + 1:
        raise InvalidInputError(f"model.frozen_layers = {layers}: the transformer has {last + 1} layers")
    embeddings = {id(weight) for weight in transformer.get_input_embeddings().parameters()}
    for name, weight in transformer.named_parameters():
        number = numbers[name]
        embedded = id(weight) in embeddings or name.startswith("embeddings.")
        if embedded or (number is not None and number < layers):
            weight.requires_grad_(False)


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found[1])
