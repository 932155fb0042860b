"""Files in, a file of pairs out, of any size: each stage leaves files that the next run takes up.

files → sentence stores → vector shards → neighbours → calibration → pairs → output
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import embedsvc
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.calibration_stage import CalibratedSides, calibrate_with_known_pairs
from embedsvc.mining.curves import CalibrationOptions
from embedsvc.mining.document_files import mine_document_files, read_document_files
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.ingest import input_files
from embedsvc.mining.margin import CandidatePairs, all_candidates
from embedsvc.mining.mine import DEFAULT_THRESHOLDS
from embedsvc.mining.neighbour_stage import find_neighbours
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import check_output
from embedsvc.mining.pair_report import FilteredPairs, filter_pairs
from embedsvc.mining.plants import nearest_of
from embedsvc.mining.progress import Report, Step, ignore
from embedsvc.mining.results import (
    MiningSummary,
    output_facts,
    output_info,
    write_manifest,
    write_report,
    write_result,
)
from embedsvc.mining.sides import MiningInputs, Side, open_sides
from embedsvc.mining.unlabelled import SPARE_NEIGHBOURS, calibrate_unlabelled
from embedsvc.mining.work_folder import check_job, work_folder
from indexing import BothWays

LEAST_SENTENCES = 1_000
"""With fewer on a side scores alone say too little about a threshold."""


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

    The format goes by the name of ``out``. Beside it stand ``OUT.manifest.json`` (options, inputs, model,
    counts, calibration) and, of texts, ``OUT.report.txt`` (scores, samples, suspicious pairs). The same
    inputs and options give the same bytes. ``work`` keeps what a later run, after a kill or with another
    threshold, need not compute again; None uses a folder beside ``out`` that is gone at the end. ``report``
    is called often with how far it is; what it raises ends the work.
    Raises InvalidInputError and others of `embedsvc.errors` naming file and line, and OSError for a full
    disk: with ``work`` the next run goes on.
    """
    options = options or MiningOptions()
    inputs.check()
    check_output(out, output_info(options), inputs.files())
    if encoder is None and inputs.need_encoder:
        encoder = load_encoder()
    with work_folder(work, out) as folder:
        check_job(folder, {"kind": "mine documents" if options.docs else "mine"})
        if options.docs:
            return _mine_documents(folder, inputs, out, options, encoder or load_encoder(), report)
        return _Run(folder, inputs, out, options, encoder, report).mine()


def _mine_documents(
    folder: Path, inputs: MiningInputs, out: Path, options: MiningOptions, encoder: Encoder, report: Report
) -> MiningSummary:
    files = read_document_files(inputs, options)

    def mine_rest(rest: MiningInputs, rest_out: Path, sentences: MiningOptions) -> dict[str, Any]:
        return _Run(folder / "rest", rest, rest_out, sentences, encoder, report).mine().manifest

    count, facts = mine_document_files(files, out, folder, options, encoder, mine_rest, inputs.dev, report)
    manifest = {
        "embedsvc": embedsvc.__version__,
        "out": output_facts(out, options, count),
        "options": asdict(options),
        "model": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "inputs": [asdict(file) for file in input_files(files.paths)],
        **facts,
    }
    write_manifest(out, manifest)
    return MiningSummary(out, count, manifest)


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
        sides = open_sides(self._inputs, self._folder, options, self._encoder, self._report)
        alone = self._calibrates_alone(sides)
        neighbours = find_neighbours(
            sides[0].vectors,
            sides[1].vectors,
            options.k + SPARE_NEIGHBOURS * alone,
            self._folder / "neighbours",
            options,
            self._report,
        )
        both = nearest_of(neighbours.both, options.k)
        everything = mined_pairs(both, options.margin, options.retrieval)
        calibration = None
        if len(everything):  # else there is nothing to calibrate, and nothing to keep
            calibration = self._calibrated_alone(neighbours.both) if alone else self._calibrated(sides, both)
        threshold = self._threshold(calibration)
        report = write_report(self._out, everything, sides, threshold)
        filtered = self._filtered(self._found(both, everything, threshold), sides)
        count = write_result(self._out, filtered.kept, sides, calibration, options, self._report)
        manifest = {
            "embedsvc": embedsvc.__version__,
            "out": output_facts(self._out, options, count),
            "options": asdict(options),
            "threshold": threshold,
            **self._input_facts(sides),
            "neighbours": neighbours.facts,
            "calibration": calibration and calibration.to_json(),
            "pair_filters": filtered.to_json(),
            "report": report and report.to_json(),
        }
        write_manifest(self._out, manifest)
        return MiningSummary(self._out, count, manifest)

    def _calibrates_alone(self, sides: tuple[Side, Side]) -> bool:
        """Say whether the threshold is to be found from the scores alone."""
        if self._inputs.dev is not None or self._options.threshold is not None:
            return False
        return min(len(side.vectors.shards) for side in sides) >= LEAST_SENTENCES

    def _calibrated_alone(self, both: BothWays) -> Calibration:
        self._report(Step("calibrate", 0, 1, "calibrations"))
        options = self._options
        found = calibrate_unlabelled(
            both,
            options.k,
            CalibrationOptions(options.margin, options.retrieval, options.precision, seed=options.seed),
        )
        self._report(Step("calibrate", 1, 1, "calibrations"))
        return found

    def _calibrated(self, sides: tuple[Side, Side], both: BothWays) -> Calibration | None:
        texts = [side.texts for side in sides]
        if self._inputs.dev is None or texts[0] is None or texts[1] is None or self._encoder is None:
            return None
        vectors = sides[0].vectors, sides[1].vectors
        return calibrate_with_known_pairs(
            CalibratedSides((texts[0], texts[1]), vectors, both),
            self._inputs.dev,
            self._encoder,
            self._folder / "calibration",
            self._options,
            self._report,
        )

    def _threshold(self, calibration: Calibration | None) -> float:
        if self._options.threshold is not None:
            return self._options.threshold
        return (
            DEFAULT_THRESHOLDS[self._options.margin] if calibration is None else calibration.threshold.value
        )

    def _found(self, both: BothWays, everything: CandidatePairs, threshold: float) -> CandidatePairs:
        options = self._options
        if options.all_candidates:
            candidates = all_candidates(both, options.margin)
            least = float("-inf") if options.threshold is None else threshold
            return candidates.take(candidates.scores >= least)
        if options.retrieval == "optimal":  # the choice depends on the threshold
            return mined_pairs(both, options.margin, options.retrieval, threshold=threshold)
        return everything.take(everything.scores >= threshold)

    def _filtered(self, found: CandidatePairs, sides: tuple[Side, Side]) -> FilteredPairs:
        source, target = (side.texts for side in sides)
        if source is None or target is None or self._options.all_candidates:
            return FilteredPairs(found)
        return filter_pairs(found, source.store, target.store, self._options.filters)

    def _input_facts(self, sides: tuple[Side, Side]) -> dict[str, Any]:
        given = (self._inputs.source_vectors, self._inputs.target_vectors)
        vectors = [path for path in given if path is not None]
        encoder = self._encoder
        source, target = (side.texts and side.texts.store.report.to_json() for side in sides)
        return {
            "model": encoder and {"name": encoder.name, "fingerprint": encoder.fingerprint},
            "vectors": [asdict(file) for file in input_files(vectors)] if vectors else [],
            "dev": self._inputs.dev and asdict(input_files([self._inputs.dev])[0]),
            "source": source,
            "target": target,
        }
