"""From token states to one vector per text, in numpy, exactly as sentence-transformers pools them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import ModelError
from embedsvc.model_folder import Module

States = NDArray[np.float32]  # (n, t, dim)


@dataclass(frozen=True)
class Pooling:
    """Which poolings to concatenate, and whether the prompt's tokens take part."""

    modes: tuple[str, ...]
    include_prompt: bool = True


@dataclass(frozen=True)
class _Tokens:
    """The states with the tokens to pool, and where each text begins (padding may be on the left)."""

    states: States
    kept: NDArray[np.bool_]  # (n, t) tokens that are pooled
    begin: NDArray[np.int64]  # (n,) first token of the text, prompt included


def pool_states(
    states: States, mask: NDArray[np.int64], pooling: Pooling, prompt: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return (n, len(modes) * dim): each mode's pooling of states (n, t, dim) over mask (n, t), concatenated.

    prompt (n,) counts the leading tokens of each text, special ones included, that are left out
    when the pooling excludes the prompt; position weights still count from the text's beginning.
    """
    kept = mask.astype(bool)
    begin = kept.argmax(axis=1)
    if prompt is not None and not pooling.include_prompt:
        kept &= np.arange(mask.shape[1]) >= (begin + prompt)[:, None]
    tokens = _Tokens(states, kept, begin)
    return np.concatenate([POOLING_MODES[mode](tokens) for mode in pooling.modes], axis=1)


def _first(tokens: _Tokens) -> NDArray[np.float32]:
    first: NDArray[np.float32] = tokens.states[np.arange(len(tokens.states)), tokens.kept.argmax(axis=1)]
    return first


def _last(tokens: _Tokens) -> NDArray[np.float32]:
    position = tokens.kept.shape[1] - 1 - tokens.kept[:, ::-1].argmax(axis=1)
    last: NDArray[np.float32] = tokens.states[np.arange(len(tokens.states)), position]
    return last * tokens.kept.any(axis=1, keepdims=True)


def _max(tokens: _Tokens) -> NDArray[np.float32]:
    candidates = np.where(tokens.kept[:, :, None], tokens.states, np.float32(-np.inf))
    highest: NDArray[np.float32] = candidates.max(axis=1)
    return highest


def _mean(tokens: _Tokens) -> NDArray[np.float32]:
    weights = tokens.kept.astype(np.float32)
    return _weighted_sum(tokens.states, weights) / _total(weights)


def _mean_sqrt_length(tokens: _Tokens) -> NDArray[np.float32]:
    weights = tokens.kept.astype(np.float32)
    root: NDArray[np.float32] = np.sqrt(_total(weights))
    return _weighted_sum(tokens.states, weights) / root


def _weighted_mean(tokens: _Tokens) -> NDArray[np.float32]:
    positions = np.arange(1, tokens.kept.shape[1] + 1) - tokens.begin[:, None]
    weights = (positions * tokens.kept).astype(np.float32)
    return _weighted_sum(tokens.states, weights) / _total(weights)


def _weighted_sum(states: States, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    summed: NDArray[np.float32] = np.matmul(weights[:, None, :], states)[:, 0, :]
    return summed


def _total(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    total: NDArray[np.float32] = np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-9))
    return total


# In the order in which sentence-transformers concatenates the modes of an old-style config.
POOLING_MODES: dict[str, Callable[[_Tokens], NDArray[np.float32]]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_pooling(module: Module) -> Pooling:
    """Read the config of a Pooling module, old style (one boolean per mode) or new (``pooling_mode``)."""
    config = module.config
    if not config:
        raise ModelError(
            f"the model folder is incomplete: {module.folder / 'config.json'} is missing or empty"
        )
    given = config.get("pooling_mode")
    if given is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        unknown = [key for key in on if key not in _OLD_KEYS]
        modes = [mode for key, mode in _OLD_KEYS.items() if key in on] or ["mean"]
    else:
        modes = [given] if isinstance(given, str) else list(given)
        unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise ModelError(
            f"{module.folder}: unknown pooling mode {', '.join(map(repr, unknown)) or given!r}; "
            f"known are {', '.join(POOLING_MODES)}"
        )
    return Pooling(tuple(modes), bool(config.get("include_prompt", True)))
