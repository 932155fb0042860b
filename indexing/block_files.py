"""The file of a block: its lists, and a checksum that says whether they are whole."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from indexing.block_lists import BlockLists, Lists
from indexing.durable import durable_file, move_into_place
from indexing.neighbours import Neighbours

VERSION = 1
"""Of the contents; part of the names, so that files of another version are not looked at."""

_DIGEST = hashlib.sha256().digest_size


def block_content(lists: BlockLists) -> bytes:
    """Return what the file of a block holds."""
    content = io.BytesIO(bytes(_DIGEST))
    content.seek(_DIGEST)
    for side in (lists.x, lists.y):
        np.save(content, side.neighbours.scores)
        np.save(content, side.neighbours.rows.astype(np.int32))
        np.save(content, side.ceilings)
    content.seek(0)
    content.write(hashlib.sha256(content.getbuffer()[_DIGEST:]).digest())
    return content.getvalue()


def write_block(path: Path, content: bytes) -> None:
    """Write the file of a block, durably.

    Raises:
        OSError: the file cannot be written; there is none then.
    """
    temporary = path.with_suffix(".tmp")
    with durable_file(temporary) as file:
        file.write(content)
    move_into_place(temporary, path)


def read_block(path: Path) -> BlockLists | None:
    """Return the lists of a block; None where the file is missing or damaged."""
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        return None
    file = io.BytesIO(content[_DIGEST:])
    return BlockLists(_read_lists(file), _read_lists(file))


def _read_lists(file: io.BytesIO) -> Lists:
    scores, rows, ceilings = (np.load(file, allow_pickle=False) for _ in range(3))
    return Lists(Neighbours(scores, rows.astype(np.int64)), ceilings)
