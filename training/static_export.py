"""Write a static model folder: sentence-transformers layout, int8 rows with one scale each, or float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedsvc.encoders.static_table import SCALE_NAME, WEIGHT_NAMES
from embedsvc.textfiles import atomic_write, write_json

TableDtype = Literal["int8", "float32"]


def quantise_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 rows and the float32 scale of each: ``table ≈ rows * scale[:, None]``."""
    scale = np.maximum(np.abs(table).max(axis=1), np.finfo(np.float32).tiny) / 127.0
    rows = np.rint(table / scale[:, None]).astype(np.int8)
    return rows, scale.astype(np.float32)


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
    if dtype == "int8":
        rows, scale = quantise_rows(table)
        tensors = {WEIGHT_NAMES[0]: rows, SCALE_NAME: scale}
    else:
        tensors = {WEIGHT_NAMES[0]: np.ascontiguousarray(table, np.float32)}
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
