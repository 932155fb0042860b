"""Write a static model folder: sentence-transformers layout, float32 or rows of 8 or 4 bits with a scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedsvc.encoders.static_table import LEVELS_NAME, SCALE_NAME, WEIGHT_NAMES
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write, write_json

TableDtype = Literal["int4", "int8", "float32"]
_LLOYD_ROWS = 4096  # a sample of a million values and more
_LLOYD_ROUNDS = 50
_PACK_ROWS = 8192


def quantise_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 rows and the float32 scale of each: ``table ≈ rows * scale[:, None]``."""
    scale = np.maximum(np.abs(table).max(axis=1), np.finfo(np.float32).tiny) / 127.0
    rows = np.rint(table / scale[:, None]).astype(np.int8)
    return rows, scale.astype(np.float32)


def pack_rows(
    table: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Return 4-bit codes (rows, dim / 2), two in a byte, the scale of each row, and the 16 levels.

    ``table ≈ levels[codes] * scale[:, None]``. The levels are those of least squared error over the
    whole table, each row divided by its root mean square (Lloyd 1982); then each row's scale is.
    Raises InvalidInputError for an odd dimension.
    """
    if table.shape[1] % 2:
        raise InvalidInputError(f"dimension {table.shape[1]} is odd; 4-bit rows pack two in a byte")
    scale = np.maximum(np.sqrt((table**2).mean(axis=1)), np.finfo(np.float32).tiny)
    sample = slice(None, None, -(-len(table) // _LLOYD_ROWS))
    levels = _lloyd_levels(table[sample] / scale[sample, None])
    codes = np.empty(table.shape, np.uint8)
    for begin in range(0, len(table), _PACK_ROWS):
        rows = slice(begin, begin + _PACK_ROWS)
        codes[rows] = np.searchsorted(_borders(levels), table[rows] / scale[rows, None])
        chosen = levels[codes[rows]]
        squares = np.maximum((chosen**2).sum(axis=1), np.finfo(np.float32).tiny)
        scale[rows] = (chosen * table[rows]).sum(axis=1) / squares
    packed: NDArray[np.uint8] = codes[:, ::2] + np.uint8(16) * codes[:, 1::2]
    return packed, scale, levels


def _lloyd_levels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 16 values, ascending, that represent the given ones with the least squared error."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(16) + 0.5) / 16)
    for _ in range(_LLOYD_ROUNDS):
        ends = np.searchsorted(ordered, np.concatenate([[-np.inf], _borders(levels), [np.inf]]))
        count = np.diff(ends)
        levels = np.where(count > 0, np.diff(sums[ends]) / np.maximum(count, 1), levels)
    return levels.astype(np.float32)


def _borders(levels: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return (levels[1:] + levels[:-1]) / 2


def turned_within(table: NDArray[np.float32], sizes: Sequence[int], *, seed: int) -> NDArray[np.float32]:
    """Return (rows, dim) with its columns turned at random from each of ``sizes`` to the next.

    sizes: ascending. Scalar products stay, also those of the first ``sizes[i]`` columns; afterwards the
    columns of a block are about equally large (Gong et al. 2013, https://doi.org/10.1109/TPAMI.2012.193).
    """
    generator = np.random.default_rng(seed)
    turned = np.empty_like(table)
    for begin, end in pairwise([0, *sizes]):
        turn, _ = np.linalg.qr(generator.standard_normal((end - begin, end - begin)))
        turned[:, begin:end] = table[:, begin:end] @ turn.astype(np.float32)
    return turned


def write_static_folder(
    folder: Path,
    table: NDArray[np.float32],
    tokenizer_json: str,
    *,
    matryoshka_dimensions: Sequence[int],
    dtype: TableDtype = "int8",
    card: str | None = None,
) -> None:
    """Write the files of a static model; with float32, sentence-transformers opens the folder too."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {WEIGHT_NAMES[0]: np.ascontiguousarray(table, np.float32)}
    if dtype == "int8":
        tensors[WEIGHT_NAMES[0]], tensors[SCALE_NAME] = quantise_rows(table)
    elif dtype == "int4":
        tensors[WEIGHT_NAMES[0]], tensors[SCALE_NAME], tensors[LEVELS_NAME] = pack_rows(table)
    with atomic_write(folder / "model.safetensors") as file:  # save_file() makes it private to its owner
        file.write(save(tensors))
    compact = json.dumps(json.loads(tokenizer_json), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Normalize").mkdir(exist_ok=True)
    write_json(folder / "1_Normalize" / "config.json", {})
    general: dict[str, object] = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "matryoshka_dimensions": sorted(matryoshka_dimensions),
    }
    write_json(folder / "config_sentence_transformers.json", general)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
