"""Files in, a file of pairs out, of any size: each stage leaves files that the next run takes up.

files → sentence stores → vector shards → neighbours → calibration → pairs → output
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import embedsvc
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.calibration_stage import CalibratedSides, calibrate_with_known_pairs
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.ingest import ingest, input_files
from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.margin import DIRECTION_NAMES, CandidatePairs
from embedsvc.mining.mine import DEFAULT_THRESHOLDS
from embedsvc.mining.neighbour_stage import find_neighbours
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import OutputInfo, output_kind, write_pairs
from embedsvc.mining.pair_report import FilteredPairs, filter_pairs
from embedsvc.mining.progress import Report, Step, ignore
from embedsvc.mining.records import Pair, PairSide
from embedsvc.mining.side_vectors import SideTexts, SideVectors, encode_side, given_vectors
from embedsvc.mining.work_folder import check_job, work_folder
from embedsvc.textfiles import write_json
from indexing import BothWays
from indexing.durable import file_sha256


@dataclass(frozen=True)
class MiningInputs:
    """What is mined: files of sentences, vectors (.npy, a row per record), or both; and known pairs."""

    source: Sequence[Path] = ()
    target: Sequence[Path] = ()
    source_vectors: Path | None = None
    target_vectors: Path | None = None
    dev: Path | None = None


@dataclass(frozen=True)
class MiningSummary:
    """What came out: the file, its pairs, the least score kept and all that the manifest says."""

    out: Path
    pairs: int
    threshold: float
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was done, for people."""
        margin = self.manifest["options"]["margin"]
        return f"wrote {self.out}: {self.pairs} pairs with {margin} >= {self.threshold:g}"


def mine_files(
    inputs: MiningInputs,
    out: Path,
    options: MiningOptions | None = None,
    *,
    work: Path | None = None,
    encoder: Encoder | None = None,
    report: Report = ignore,
) -> MiningSummary:
    """Write the pairs of two sides that are probably translations, best first, to ``out``.

    The format goes by the name of ``out``. Beside it stands ``OUT.manifest.json``: options, inputs, model,
    counts, calibration. The same inputs and options give the same bytes. ``work`` keeps what a later run,
    after a kill or with another threshold, need not compute again; None uses a folder beside ``out`` that
    is gone at the end. ``report`` is called often with how far it is; what it raises ends the work.
    Raises InvalidInputError and others of `embedsvc.errors` naming file and line, and OSError for a full
    disk: with ``work`` the next run goes on.
    """
    options = options or MiningOptions()
    _check_inputs(inputs)
    output_kind(out)
    with work_folder(work, out) as folder:
        check_job(folder, {"kind": "mine"})
        return _Run(folder, inputs, out, options, encoder, report).mine()


def _check_inputs(inputs: MiningInputs) -> None:
    for name in ("source", "target"):
        if not getattr(inputs, name) and getattr(inputs, f"{name}_vectors") is None:
            raise InvalidInputError(f"nothing to mine: give a {name} file or {name} vectors", param=name)


@dataclass(frozen=True, eq=False)
class _Side:
    """A side: its sentences, if there are texts, and its vectors, a row each."""

    texts: SideTexts | None
    vectors: SideVectors

    def pair_side(self, row: int) -> PairSide:
        return PairSide(str(row)) if self.texts is None else self.texts.store.side(row)


class _Run:
    """One job from inputs to output."""

    def __init__(
        self,
        folder: Path,
        inputs: MiningInputs,
        out: Path,
        options: MiningOptions,
        encoder: Encoder | None,
        report: Report,
    ) -> None:
        self._folder, self._inputs, self._out = folder, inputs, out
        self._options, self._encoder, self._report = options, encoder, report

    def mine(self) -> MiningSummary:
        options = self._options
        source, target = self._sides()
        neighbours = find_neighbours(
            source.vectors, target.vectors, self._folder / "neighbours", options, self._report
        )
        calibration = self._calibration(source, target, neighbours.both)
        threshold = options.threshold
        if threshold is None:
            threshold = (
                DEFAULT_THRESHOLDS[options.margin] if calibration is None else calibration.threshold.value
            )
        found = mined_pairs(neighbours.both, options.margin, options.retrieval, threshold=threshold)
        filtered = self._filtered(found, source, target)
        count = self._write(filtered.kept, source, target, calibration)
        manifest = {
            "embedsvc": embedsvc.__version__,
            "out": {"name": self._out.name, "sha256": file_sha256(self._out), "pairs": count},
            "options": asdict(options),
            "threshold": threshold,
            **self._input_facts(source, target),
            "neighbours": neighbours.facts,
            "calibration": calibration and calibration.to_json(),
            "pair_filters": filtered.to_json(),
        }
        write_json(self._out.with_name(f"{self._out.name}.manifest.json"), manifest)
        return MiningSummary(self._out, count, threshold, manifest)

    def _calibration(self, source: _Side, target: _Side, both: BothWays) -> Calibration | None:
        if self._inputs.dev is None:
            return None
        if source.texts is None or target.texts is None or self._encoder is None:
            raise InvalidInputError(
                "dev pairs are sentences: mining vectors alone cannot use them", param="dev"
            )
        sides = CalibratedSides((source.texts, target.texts), (source.vectors, target.vectors), both)
        folder = self._folder / "calibration"
        return calibrate_with_known_pairs(
            sides, self._inputs.dev, self._encoder, folder, self._options, self._report
        )

    def _filtered(self, found: CandidatePairs, source: _Side, target: _Side) -> FilteredPairs:
        if source.texts is None or target.texts is None:
            return FilteredPairs(found)
        return filter_pairs(found, source.texts.store, target.texts.store, self._options.filters)

    def _sides(self) -> tuple[_Side, _Side]:
        names = ("source", "target")
        texts = [self._texts(name) for name in names]
        sides = [_Side(found, self._vectors(name, found)) for name, found in zip(names, texts, strict=True)]
        widths = [side.vectors.shards.dimension for side in sides]
        if widths[0] != widths[1]:
            raise DimensionMismatchError(
                f"source vectors have {widths[0]} dimensions, target vectors {widths[1]}"
            )
        return sides[0], sides[1]

    def _texts(self, name: str) -> SideTexts | None:
        paths: Sequence[Path] = getattr(self._inputs, name)
        if not paths:
            return None
        options = self._options
        reading = IngestOptions(
            language=options.src_lang if name == "source" else options.tgt_lang,
            filters=options.filters,
            encoding_errors=options.encoding_errors,
            kind=options.kind,
            columns=options.columns,
            text_field=options.text_field,
            id_field=options.id_field,
            document_field=options.document_field,
            min_characters=options.min_characters,
            max_characters=options.max_characters,
            max_line_bytes=options.max_line_bytes,
        )

        def progress(step: Step) -> None:
            self._report(replace(step, stage=f"read {name}"))

        return SideTexts(name, ingest(paths, self._folder / name, reading, progress=progress))

    def _vectors(self, name: str, texts: SideTexts | None) -> SideVectors:
        path: Path | None = getattr(self._inputs, f"{name}_vectors")
        folder = self._folder / f"{name}-vectors"
        if path is not None:
            return given_vectors(path, texts, folder, name)
        assert texts is not None
        if self._encoder is None:
            self._encoder = load_encoder()
        return encode_side(texts, self._encoder, folder, self._options, self._report)

    def _write(
        self, found: CandidatePairs, source: _Side, target: _Side, calibration: Calibration | None
    ) -> int:
        total = len(found)
        info = OutputInfo(self._options.src_lang, self._options.tgt_lang)

        def pairs() -> Iterator[Pair]:
            for number, pair in enumerate(self._pairs(found, source, target, calibration)):
                if number % 1000 == 0:
                    self._report(Step("write", number, total, "pairs"))
                yield pair

        count = write_pairs(self._out, pairs(), info)
        self._report(Step("write", total, total, "pairs"))
        return count

    def _pairs(
        self, found: CandidatePairs, source: _Side, target: _Side, calibration: Calibration | None
    ) -> Iterator[Pair]:
        probabilities: Iterable[float | None] = repeat(None, len(found))
        if calibration is not None:
            probabilities = calibration.probabilities(found.scores).tolist()
        columns = (found.scores, found.cosines, found.source_rows, found.target_rows, found.directions)
        rows = zip(*(column.tolist() for column in columns), probabilities, strict=True)
        for score, cosine, i, j, direction, probability in rows:
            yield Pair(
                score,
                cosine,
                source.pair_side(i),
                target.pair_side(j),
                self._options.margin,
                DIRECTION_NAMES[direction],
                probability,
            )

    def _input_facts(self, source: _Side, target: _Side) -> dict[str, Any]:
        given = (self._inputs.source_vectors, self._inputs.target_vectors)
        vectors = [path for path in given if path is not None]
        encoder = self._encoder
        return {
            "model": encoder and {"name": encoder.name, "fingerprint": encoder.fingerprint},
            "vectors": [asdict(file) for file in input_files(vectors)] if vectors else [],
            "source": source.texts and source.texts.store.report.to_json(),
            "target": target.texts and target.texts.store.report.to_json(),
        }
