"""From the patterns of a recipe to files: in a folder, or in a data set of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.compression import PACKED_SUFFIXES
from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.hub import download_dataset
from embedsvc.mining.ingest import input_files
from training.data_config import PairFiles


@dataclass(frozen=True)
class PairFile:
    """A file of pairs, or the two of a Moses pair, and how the recipe says that it is read.

    ``entry`` is the number of its section in the recipe: groups are told apart by it.
    """

    path: Path
    target_path: Path | None
    reading: PairFiles
    entry: int

    @property
    def paths(self) -> list[Path]:
        """The one file or the two."""
        return [self.path] if self.target_path is None else [self.path, self.target_path]


def file_facts(files: Sequence[PairFile]) -> list[dict[str, Any]]:
    """Return name, size and sha256 of every file, as JSON has them."""
    return path_facts([path for file in files for path in file.paths])


def path_facts(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name, size and sha256 of every file, each once, as JSON has them."""
    return [
        {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
        for file in input_files([*dict.fromkeys(paths)])
    ]


def pair_files(sections: Sequence[PairFiles], folder: Path) -> list[PairFile]:
    """Return the files that the sections name, those of each section sorted.

    Raises NotFoundError for a pattern that names none, InvalidInputError for as many files on one side of
    Moses pairs as not on the other, and for a file that is named twice.
    """
    found = [file for entry, reading in enumerate(sections) for file in _files(reading, entry, folder)]
    seen: set[tuple[object, ...]] = set()
    for file in found:
        known = (*file.paths, file.reading.source_language, file.reading.target_language)
        if known in seen:
            raise InvalidInputError(f"data.pairs: {file.path} is named twice; its pairs would count double")
        seen.add(known)
    return found


def _files(reading: PairFiles, entry: int, folder: Path) -> list[PairFile]:
    base = folder if reading.dataset is None else _dataset(reading, folder)
    paths = matching_files(reading.files, base)
    if reading.target_files is None:
        return [PairFile(path, None, reading, entry) for path in paths]
    targets = matching_files(reading.target_files, base)
    if len(paths) != len(targets):
        raise InvalidInputError(
            f"data.pairs: {len(paths)} files match {reading.files!r}, but {len(targets)} match "
            f"{reading.target_files!r}; each file of lines needs that of its translations"
        )
    return [PairFile(*both, reading, entry) for both in zip(paths, targets, strict=True)]


def _dataset(reading: PairFiles, folder: Path) -> Path:
    """A folder, if there is one of that name, else the hub's data set."""
    assert reading.dataset is not None
    local = folder / Path(reading.dataset).expanduser()
    if local.is_dir():
        return local
    patterns = [name for name in (reading.files, reading.target_files) if name is not None]
    return download_dataset(reading.dataset, reading.revision, patterns)


def matching_files(pattern: str, folder: Path) -> list[Path]:
    """Return the file of that name, packed or not, or all that match; raise NotFoundError for none."""
    for suffix in ("", *PACKED_SUFFIXES):
        whole = folder / Path(pattern + suffix).expanduser()
        if whole.is_file():
            return [whole]
        # A pattern may be absolute, which Path.glob refuses.
        anchored = Path(whole.anchor) if whole.is_absolute() else folder
        relative = str(whole.relative_to(anchored)) if whole.is_absolute() else pattern + suffix
        if matches := sorted(path for path in anchored.glob(relative) if path.is_file()):
            return matches
    raise NotFoundError(f"no file matches {pattern!r} in {folder}; say where the data is with --data DIR")
