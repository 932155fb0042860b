"""The two sides of a run: their sentences, if there are texts, and their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from embedsvc.encoder import Encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.ingest import ingest
from embedsvc.mining.ingest_options import IngestOptions, ReadingOptions
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.records import PairSide
from embedsvc.mining.side_vectors import SideTexts, SideVectors, encode_side, given_vectors


@dataclass(frozen=True)
class MiningInputs:
    """What is mined: files of sentences, vectors (.npy, a row per record), or both; and known pairs."""

    source: Sequence[Path] = ()
    target: Sequence[Path] = ()
    source_vectors: Path | None = None
    target_vectors: Path | None = None
    dev: Path | None = None

    def check(self) -> None:
        """Raise InvalidInputError unless there is something on both sides that goes together."""
        for name in ("source", "target"):
            if not getattr(self, name) and getattr(self, f"{name}_vectors") is None:
                raise InvalidInputError(f"nothing to mine: give a {name} file or {name} vectors", param=name)
        if self.dev is not None and not (self.source and self.target):
            raise InvalidInputError("dev pairs are sentences: vectors alone cannot use them", param="dev")

    def files(self) -> list[Path]:
        """Return all files that are read."""
        others = (self.source_vectors, self.target_vectors, self.dev)
        return [*self.source, *self.target, *(path for path in others if path is not None)]

    @property
    def need_encoder(self) -> bool:
        """Whether anything has to be encoded."""
        return self.source_vectors is None or self.target_vectors is None or self.dev is not None


@dataclass(frozen=True, eq=False)
class Side:
    """A side: its sentences, if there are texts, and its vectors, a row each."""

    texts: SideTexts | None
    vectors: SideVectors

    def pair_side(self, row: int) -> PairSide:
        """Return what a pair says about a row: without texts its number."""
        return PairSide(str(row)) if self.texts is None else self.texts.store.side(row)


def open_sides(
    inputs: MiningInputs, folder: Path, options: MiningOptions, encoder: Encoder | None, report: Report
) -> tuple[Side, Side]:
    """Read and encode what is not in the folder yet.

    Raises InvalidInputError naming file and line, DimensionMismatchError for vectors of two widths.
    """
    texts = [
        _read(inputs.source, "source", folder, options, report),
        _read(inputs.target, "target", folder, options, report),
    ]
    sides = []
    for found, name in zip(texts, ("source", "target"), strict=True):
        path: Path | None = getattr(inputs, f"{name}_vectors")
        if path is not None:
            vectors = given_vectors(path, found, folder / f"{name}-given", name)
        else:
            assert found is not None
            assert encoder is not None
            vectors = encode_side(found, encoder, folder / f"{name}-vectors", options, report)
        sides.append(Side(found, vectors))
    widths = [side.vectors.shards.dimension for side in sides]
    if widths[0] != widths[1]:
        raise DimensionMismatchError(
            f"source vectors have {widths[0]} dimensions, target vectors {widths[1]}"
        )
    return sides[0], sides[1]


def _read(
    paths: Sequence[Path], name: str, folder: Path, options: MiningOptions, report: Report
) -> SideTexts | None:
    if not paths:
        return None
    shared = {field.name: getattr(options, field.name) for field in fields(ReadingOptions)}
    language = options.src_lang if name == "source" else options.tgt_lang
    reading = IngestOptions(**shared, language=language)

    def progress(step: Step) -> None:
        report(replace(step, stage=f"read {name}"))

    return SideTexts(name, ingest(paths, folder / name, reading, progress=progress))
