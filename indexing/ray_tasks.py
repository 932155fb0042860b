"""What the workers of a Ray cluster run: the functions of the local engine, on one block or one shard."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.block_files import block_content
from indexing.block_lists import Merged, block_lists, merge_lists
from indexing.errors import IndexFileError, IndexingError
from indexing.grid import Side, read_parts
from indexing.methods import Method, Work
from indexing.shard_parts import ShardPart

Shard = ShardPart | NDArray[Any]
"""Where a shard can be read, or its rows as they are stored."""


@dataclass(frozen=True)
class NotSeen:
    """The answer of a worker that does not see the files of a side; ``why`` is for who looks into it."""

    side: Side
    why: str


@dataclass(frozen=True)
class BlockTask:
    """How a block is computed, and the `code_fingerprint` of who asks."""

    method: Method
    k: int
    threads: int
    code: str


def compute_block(x: Shard, y: Shard, task: BlockTask) -> bytes | NotSeen:
    """Return the content of a block's file.

    Raises:
        IndexingError: the method does not work here, or this machine has another version of the code.
    """
    check_code(task.code)
    vectors: list[NDArray[np.float32]] = []
    sides: tuple[tuple[Side, Shard], ...] = (("x", x), ("y", y))
    for side, shard in sides:
        try:
            vectors.append(shard.read() if isinstance(shard, ShardPart) else shard.astype(np.float32))
        except IndexFileError as error:
            return NotSeen(side, str(error))
    lists = block_lists(vectors[0], vectors[1], task.method, Work(task.k, task.threads))
    return block_content(lists)


@dataclass(frozen=True)
class MergeTask:
    """The folder of the blocks, the side that is merged, how many neighbours a row keeps, and who asks."""

    folder: Path
    side: Side
    kept: int
    code: str


def merge_shard(parts: list[tuple[int, str]], task: MergeTask) -> Merged | NotSeen:
    """Return the lists of a shard, merged from those of its blocks.

    Raises:
        IndexingError: this machine has another version of the code.
    """
    check_code(task.code)
    try:
        return merge_lists(read_parts(task.folder, parts, task.side), task.kept)
    except IndexFileError as error:
        return NotSeen(task.side, str(error))


def check_code(expected: str) -> None:
    """Raise IndexingError where this package is not the one with that `code_fingerprint`."""
    if code_fingerprint() != expected:
        raise IndexingError(
            f"{Path(__file__).parent} on a node of the cluster is another version than here; "
            "install the same on all nodes"
        )


@functools.cache
def code_fingerprint() -> str:
    """Return the sha256 of the source files of this package."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
