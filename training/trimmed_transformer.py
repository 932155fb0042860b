"""The token vectors of a transformer, cut down to some of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedsvc.encoders.pytorch import load_modules
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder


def write_transformer(source: ModelFolder, out: Path, kept: NDArray[np.int64]) -> int:
    """Write weights and config.json with the vectors of the ids ``kept`` alone; return their width.

    Raises ModelError for a transformer without an ordinary table of token vectors.
    """
    module: Any = load_modules(source, torch.device("cpu"))[0]
    model = module.auto_model
    table = model.get_input_embeddings()
    if not isinstance(table, torch.nn.Embedding) or len(table.weight) <= kept[-1]:
        raise ModelError(
            f"{source.path}: {type(model).__name__} has no table with a row for each token; "
            "its vocabulary cannot be trimmed"
        )
    new = {int(old): place for place, old in enumerate(kept)}
    table.weight = torch.nn.Parameter(table.weight.detach()[torch.from_numpy(kept)])
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        table.padding_idx = new.get(table.padding_idx)
    model.set_input_embeddings(table)
    _renumber(model.config, new)
    model.save_pretrained(out / source.modules[0].folder.relative_to(source.path))
    return int(table.weight.shape[1])


def _renumber(config: Any, new: dict[int, int]) -> None:
    """Give the ids that a config names their new numbers; one without a token becomes none."""
    for one in {id(part): part for part in (config, config.get_text_config())}.values():
        one.vocab_size = len(new)
        for key, value in list(one.to_dict().items()):
            if key.endswith("_token_id") and isinstance(value, int):
                setattr(one, key, new.get(value))
            elif key.endswith("_token_id") and isinstance(value, list):
                setattr(one, key, [new[id_] for id_ in value if id_ in new])
