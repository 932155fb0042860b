"""Go on from a static model: its tokenizer, and its table as the first rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from embedsvc.encoder import locate_model
from embedsvc.encoders.static_table import StaticTableRuntime
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import ModelFolder, open_model_folder

if TYPE_CHECKING:
    from training.static_model import StaticTable


def static_folder(model: str) -> ModelFolder:
    """Open a static model; raise NotFoundError where there is none, InvalidInputError for another kind."""
    folder = open_model_folder(locate_model(model))
    if not folder.is_static:
        raise InvalidInputError(
            f"model.start: {model} is no static model; a transformer is model.transformer"
        )
    return folder


def start_tokenizer(model: str) -> Tokenizer:
    """Return the tokenizer of a static model; errors as for `static_folder`."""
    return Tokenizer.from_file(str(static_folder(model).tokenizer_file))


def start_from(table: StaticTable, model: str) -> None:
    """Give the table the rows of a static model (folder or hub id), whose token weights are in the rows.

    Raises InvalidInputError for a model of another dimension.
    """
    import torch

    rows = StaticTableRuntime(static_folder(model)).table
    vocabulary, dimension = table.vector.shape
    if rows.shape[1] != dimension:
        raise InvalidInputError(
            f"model.start: {model} has {rows.shape[1]} dimensions; set model.dimension = {rows.shape[1]}, "
            f"not {dimension}"
        )
    table.vector.copy_(torch.from_numpy(rows[:vocabulary]))
    table.log_weight.zero_()
