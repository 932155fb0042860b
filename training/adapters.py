"""An adapter (LoRA and others of the peft library) merged into the model that it was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsvc.encoder import locate_model
from embedsvc.encoders.pytorch import load_modules
from embedsvc.encoders.sequence import PaddedBatch, SequenceInputs
from embedsvc.errors import InvalidInputError, MissingExtraError, ModelError
from embedsvc.model_folder import ModelFolder, open_model_folder, read_json
from embedsvc.runtime import PreparedText
from embedsvc.self_check import PROBES
from training.model_copy import copy_plain

_CONFIG = "adapter_config.json"
_MAX_DIFFERENCE = 1e-4  # of any number of a token's state, relative to the largest


def merge_adapter(path: Path, base: str | Path | None, out: Path) -> str:
    """Write the base model with the adapter's changes in its weights to ``out``; say so.

    base is a folder or hub id (None: the one that the adapter names). Modules, prompts and tokenizer are the
    adapter folder's own where it has them. Raises MissingExtraError without peft, InvalidInputError where no
    base is named, and ModelError for an adapter that does not fit or cannot be merged.
    """
    named = base if base is not None else read_json(path / _CONFIG).get("base_model_name_or_path")
    if not named:
        raise InvalidInputError(f"{path / _CONFIG} names no base model: give --base", param="base")
    source = open_model_folder(locate_model(named))
    module: Any = load_modules(source, torch.device("cpu"))[0]
    peft_model = _with_adapter(module.auto_model, path)
    padded = _probes(source)
    before = _states(module, padded)
    try:
        merged: Any = peft_model.merge_and_unload(safe_merge=True)
    except (AttributeError, ValueError, NotImplementedError) as error:
        kind = read_json(path / _CONFIG).get("peft_type")
        raise ModelError(f"{path}: an adapter of kind {kind} cannot be merged: {error}") from error
    _require_same(before, _states(module, padded), path)
    own = open_model_folder(path) if (path / "modules.json").is_file() else source
    copy_plain(own, out)
    merged.save_pretrained(out / own.modules[0].folder.relative_to(own.path))
    return f"the adapter {path} merged into {source.name} (fingerprint `{source.fingerprint}`)"


def _with_adapter(model: Any, path: Path) -> Any:
    """Put the adapter's layers into the model; all of its weights must find their place."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError("merging an adapter", "train") from error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, str(path)).eval()
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"{path} does not fit {type(model).__name__}: {reason}") from error
    missing = [str(one.message) for one in said if "adapter keys" in str(one.message)]
    if missing:
        raise ModelError(f"{path} does not fit {type(model).__name__}: {missing[0][:200]}")
    return adapted


def _probes(source: ModelFolder) -> PaddedBatch:
    inputs = SequenceInputs(source)
    return inputs.padded([PreparedText(ids[: inputs.max_tokens]) for ids in inputs.tokenize(PROBES)])


def _states(module: Any, padded: PaddedBatch) -> torch.Tensor:
    features = {
        "input_ids": torch.from_numpy(padded.ids),
        "attention_mask": torch.from_numpy(padded.mask),
    }
    with torch.inference_mode():
        states: torch.Tensor = module(features)["token_embeddings"]
    return states


def _require_same(before: torch.Tensor, after: torch.Tensor, path: Path) -> None:
    difference = float(((before - after).abs().max() / before.abs().max()).item())
    if not np.isfinite(difference) or difference > _MAX_DIFFERENCE:
        raise ModelError(
            f"{path}: merged, the states of probe texts differ by {difference:.2g}; at most "
            f"{_MAX_DIFFERENCE:g} is allowed; nothing was written"
        )
