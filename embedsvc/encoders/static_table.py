"""The static runtime: a text is the mean of its tokens' vectors. numpy and `tokenizers`, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, read_tensors
from embedsvc.runtime import PreparedText
from embedsvc.tokens import TextTokenizer

WEIGHT_NAMES = ("embedding.weight", "embeddings")  # sentence-transformers; model2vec
SCALE_NAME = "embedding.scale"  # ours: one float per row of an int8 or 4-bit table
LEVELS_NAME = "embedding.levels"  # ours: the 16 values of a 4-bit table, two of which stand in each uint8
_STORED_WITH = {"int8": (SCALE_NAME,), "uint8": (LEVELS_NAME, SCALE_NAME)}
_GATHER_TOKENS = 1024  # tokens looked up at once: their rows stay in the cache of one core


class StaticTableRuntime:
    """Mean of table rows, computed per batch as one gather and one segmented sum."""

    name = "static"
    workers = 1  # tokenization keeps the other processors busy
    pads = False
    max_tokens: int | None = None
    special_tokens = 0
    batch_tokens = 262_144

    def __init__(self, folder: ModelFolder) -> None:
        unsupported = [module.kind for module in folder.head]
        if unsupported:
            raise ModelError(f"{folder.path}: a static model cannot be followed by {', '.join(unsupported)}")
        source = folder.modules[0].folder
        self._tokenizer = TextTokenizer(folder.tokenizer_file)
        self.table = read_table(source)
        if self._tokenizer.vocabulary > len(self.table):
            raise ModelError(
                f"{folder.path}: the tokenizer has {self._tokenizer.vocabulary} tokens, "
                f"the table only {len(self.table)} rows"
            )
        self.dimension = self.table.shape[1]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; a text without any known token has none."""
        return self._tokenizer.ids(texts)

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) means; a text without tokens gets zeros."""
        lengths = np.fromiter((len(text.ids) for text in batch), np.int64, len(batch))
        ids = np.fromiter(chain.from_iterable(text.ids for text in batch), np.int64, int(lengths.sum()))
        return mean_rows(self.table, ids, lengths)

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return the table's rows for each text."""
        return [self.table[np.array(text.ids, np.int64)] for text in batch]


def mean_rows(
    table: NDArray[np.float32], ids: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (texts, dim): the mean of ``table[ids]`` over consecutive runs of the given lengths."""
    means = np.zeros((len(lengths), table.shape[1]), np.float32)
    filled = np.flatnonzero(lengths)
    ends = np.cumsum(lengths[filled])
    begin = 0
    while begin < len(filled):
        first = int(ends[begin] - lengths[filled[begin]])
        end = max(int(np.searchsorted(ends, first + _GATHER_TOKENS, side="right")), begin + 1)
        rows = filled[begin:end]
        taken = ids[first : ends[end - 1]]
        starts = ends[begin:end] - lengths[rows] - first
        means[rows] = _sums(table, taken, starts) / lengths[rows, None]
        begin = end
    return means


def _sums(
    table: NDArray[np.float32], ids: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (texts, dim): the sums of ``table[ids]`` from each start to the next one."""
    if len(ids) <= _GATHER_TOKENS:
        return np.add.reduceat(table[ids], starts, axis=0)
    (_,) = starts  # one text of its own: in pieces, for its rows may be gigabytes
    pieces = (ids[begin : begin + _GATHER_TOKENS] for begin in range(0, len(ids), _GATHER_TOKENS))
    total = np.zeros((1, table.shape[1]), np.float32)
    for piece in pieces:
        total += table[piece].sum(axis=0)
    return total


def read_table(folder: Path) -> NDArray[np.float32]:
    """Return the table (vocabulary, dim) as float32; int8 tables are scaled row by row."""
    path = folder / "model.safetensors"
    tensors = read_tensors(path)
    name = next((name for name in WEIGHT_NAMES if name in tensors), None)
    if name is None:
        raise ModelError(f"{path} has no tensor {WEIGHT_NAMES[0]!r}; it has {sorted(tensors)}")
    if tensors[name].ndim != 2:
        raise ModelError(
            f"{path}: {name!r} has shape {tensors[name].shape}; (vocabulary, dimension) expected"
        )
    try:
        table = _table(tensors, name, path)
        return np.ascontiguousarray(_fold_model2vec(table, tensors))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: its tensors do not fit each other: {error}") from error


def _table(tensors: dict[str, NDArray[Any]], name: str, path: Path) -> NDArray[np.float32]:
    """Return the table as float32, whatever it is stored as."""
    stored = tensors[name]
    needed = _STORED_WITH.get(stored.dtype.name, ())
    missing = [other for other in needed if other not in tensors]
    if missing:
        raise ModelError(f"{path}: {name!r} is {stored.dtype} but {missing[0]!r} is missing")
    packed = LEVELS_NAME in needed
    table = _unpacked(stored, tensors[LEVELS_NAME]) if packed else stored.astype(np.float32)
    if needed:
        table *= tensors[SCALE_NAME].astype(np.float32)[:, None]
    return table


def _unpacked(codes: NDArray[np.uint8], levels: NDArray[Any]) -> NDArray[np.float32]:
    """Return (rows, 2 * columns): the level of each four bits, the low ones first."""
    pairs = np.stack([np.tile(levels, 16), np.repeat(levels, 16)], axis=1).astype(np.float32)
    as_one = pairs.view(np.uint64)[:, 0]  # looked up three times as fast as rows of two
    return as_one[codes].view(np.float32)


def _fold_model2vec(table: NDArray[np.float32], tensors: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return one row per token id: model2vec may share rows between tokens and keep their weights apart."""
    if "mapping" in tensors:
        table = table[tensors["mapping"]]
    return table * tensors["weights"].astype(np.float32)[:, None] if "weights" in tensors else table
