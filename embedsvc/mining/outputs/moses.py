"""The Moses pair of files: line n of one is the translation of line n of the other; nothing else is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from embedsvc.compression import packing, without_packing
from embedsvc.errors import InvalidInputError
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.kinds import OutputKind
from embedsvc.mining.outputs.tables import tsv_line
from embedsvc.mining.records import Pair
from embedsvc.textfiles import atomic_write


def moses_paths(path: Path, info: OutputInfo, packed: str = "") -> tuple[Path, Path]:
    """Return the two files of OUT or OUT.moses: OUT.de and OUT.en; without languages OUT.src and OUT.tgt.

    Raises InvalidInputError when both sides have the same language, so that both had one name.
    """
    base = without_packing(path) if packed else path
    base = base.with_suffix("") if base.suffix == ".moses" else base
    tags = (info.source_language or "src", info.target_language or "tgt")
    if tags[0] == tags[1]:
        raise InvalidInputError(
            f"{path}: a Moses pair is two files named by their languages, and both are {tags[0]!r}",
            param="format",
        )
    source, target = (base.with_name(f"{base.name}.{tag}{packed}") for tag in tags)
    return source, target


def write_moses(path: Path, pairs: Iterable[Pair], info: OutputInfo, kind: OutputKind) -> None:
    """Write both files or neither, and never one beside an older other: the old target goes first."""
    source, target = moses_paths(path, info, kind.packed)
    with atomic_write(target) as target_file, atomic_write(source) as source_file:
        with packing(source_file, kind.packed) as sources, packing(target_file, kind.packed) as targets:
            for pair in pairs:
                sources.write(tsv_line([pair.source.text]))
                targets.write(tsv_line([pair.target.text]))
        for file in (source_file, target_file):
            file.flush()
            os.fsync(file.fileno())
        target.unlink(missing_ok=True)
