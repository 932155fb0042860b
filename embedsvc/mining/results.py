"""What a run leaves: the file of pairs, a manifest that says all about it, and a report to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from embedsvc.languages import UNDECIDED, detect_language
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.margin import DIRECTION_NAMES, CandidatePairs
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import OutputInfo, output_files, write_pairs
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.records import Pair
from embedsvc.mining.report import MiningReport, mining_report
from embedsvc.mining.sides import Side
from embedsvc.textfiles import atomic_write, write_json
from indexing.durable import file_sha256


@dataclass(frozen=True)
class MiningSummary:
    """What came out: the file, its pairs, and all that the manifest says."""

    out: Path
    pairs: int
    manifest: dict[str, Any]

    @property
    def text(self) -> str:
        """What was done, for people: a line for the file and one for each thing that was counted."""
        if "documents" in self.manifest:
            return _document_lines(self.out, self.pairs, self.manifest)
        return _lines(f"wrote {self.out}", self.manifest)


def _document_lines(out: Path, pairs: int, manifest: dict[str, Any]) -> str:
    found = manifest["documents"]
    lines = [
        f"wrote {out}: {pairs} pairs",
        f"{len(found['pairs'])} document pairs of {found['source']} x {found['target']}, "
        f"{found['aligned']} pairs aligned in them",
    ]
    if manifest["rest"] is not None:
        lines.append(_lines("mined from the rest", manifest["rest"]))
    if manifest["rest_without_sentences"] is not None:
        lines.append(f"nothing mined from the rest: {manifest['rest_without_sentences']}")
    return "\n".join(lines)


def _lines(what: str, manifest: dict[str, Any]) -> str:
    margin, threshold = manifest["options"]["margin"], manifest["threshold"]
    kept = f"pairs with {margin} >= {threshold:.6g}"
    if manifest["options"]["all_candidates"]:
        kept = "candidates"
    lines = [f"{what}: {manifest['out']['pairs']} {kept}"]
    for name in ("source", "target"):
        if (read := manifest[name]) is not None:
            lines.append(f"{name}: {_counts(read)}")
            lines += _warnings(
                name, read, manifest["options"]["src_lang" if name == "source" else "tgt_lang"]
            )
    if manifest["source"] is not None and _hashes(manifest["source"]) == _hashes(manifest["target"]):
        lines.append("warning: source and target are the same files")
    if dropped := manifest["pair_filters"]["dropped"]:
        lines.append("pairs dropped: " + ", ".join(f"{name} {n}" for name, n in dropped.items()))
    lines.append(_calibration_line(manifest))
    return "\n".join(lines)


def _counts(read: dict[str, Any]) -> str:
    counts = {"duplicates folded": read["duplicates"], "blank": read["blank"], **read["dropped"]}
    told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f"{read['sentences']} sentences of {read['records']} lines" + (f" ({told})" if told else "")


def _hashes(read: dict[str, Any] | None) -> list[str]:
    return [file["sha256"] for file in read["files"]] if read else []


def _warnings(name: str, read: dict[str, Any], language: str | None) -> list[str]:
    """Return a line where most sentences seem to be in another language."""
    other = sum(read["dropped"].get(reason, 0) for reason in ("language", "script"))
    if 2 * other <= read["records"]:
        return []
    return [
        f"warning: {other} of {read['records']} lines of the {name} are not in {language!r}: are the files "
        "or the languages exchanged?"
    ]


def _calibration_line(manifest: dict[str, Any]) -> str:
    found, precision = manifest["calibration"], manifest["options"]["precision"]
    if found is None and manifest["options"]["threshold"] is not None:
        return "not calibrated: the threshold was given"
    if found is None:
        wanted = "" if precision is None else f", so nothing is known of precision {precision:g}"
        return f"not calibrated{wanted}: give --dev, a file of pairs known to be translations"
    estimates = ", ".join(
        f"{name} {found[name]['value']:.3f} [{found[name]['low']:.3f}, {found[name]['high']:.3f}]"
        for name in ("precision", "recall", "f1")
    )
    source = "known pairs" if found["made_by"] == "development" else "the scores alone (--dev is better)"
    notes = "".join(f"; {note}" for note in found["notes"])
    return f"expected, from {source}: {estimates}{notes}"


def write_result(
    out: Path,
    found: CandidatePairs,
    sides: tuple[Side, Side],
    calibration: Calibration | None,
    options: MiningOptions,
    report: Report,
) -> int:
    """Write the pairs, best first, and return how many."""

    def pairs() -> Iterator[Pair]:
        for number, pair in enumerate(_pairs(found, sides, calibration, options)):
            if number % 1000 == 0:
                report(Step("write", number, len(found), "pairs"))
            yield pair

    count = write_pairs(out, pairs(), output_info(options))
    report(Step("write", len(found), len(found), "pairs"))
    return count


def _pairs(
    found: CandidatePairs,
    sides: tuple[Side, Side],
    calibration: Calibration | None,
    options: MiningOptions,
) -> Iterator[Pair]:
    source, target = sides
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
            options.margin,
            DIRECTION_NAMES[direction],
            probability,
        )


def output_info(options: MiningOptions) -> OutputInfo:
    """Return what the file of pairs says of its two sides."""
    return OutputInfo(options.src_lang, options.tgt_lang)


def output_facts(out: Path, options: MiningOptions, pairs: int) -> dict[str, Any]:
    """Return what the manifest says of the result: its name, the sha256 of its one file or two, its size."""
    hashes = [file_sha256(file) for file in output_files(out, output_info(options))]
    return {"name": out.name, "sha256": hashes, "pairs": pairs}


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write ``OUT.manifest.json``."""
    write_json(out.with_name(f"{out.name}.manifest.json"), manifest)


def write_report(
    out: Path, found: CandidatePairs, sides: tuple[Side, Side], threshold: float
) -> MiningReport | None:
    """Write ``OUT.report.txt`` about the pairs before the threshold; None where there are no texts."""
    texts = [side.texts for side in sides]
    if texts[0] is None or texts[1] is None:
        return None
    stores = texts[0].store, texts[1].store
    report = mining_report(
        found, (stores[0].text, stores[1].text), threshold=threshold, language_of=_language_of
    )
    with atomic_write(out.with_name(f"{out.name}.report.txt")) as file:
        file.write(report.text().encode())
    return report


def _language_of(text: str) -> str | None:
    language = detect_language(text)
    return None if language == UNDECIDED else language
