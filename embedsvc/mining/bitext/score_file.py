"""Score a file of pairs: each gets the margin it has among all pairs of the file."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.bitext.rewrite import AddedColumns, numbers, rewrite
from embedsvc.mining.bitext.source import Bitext
from embedsvc.mining.calibration_file import read_calibration
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.filters import PAIR_FILTERS
from embedsvc.mining.margin import Margin
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.write import check_output
from embedsvc.mining.pair_filters import length_factor, pair_reason
from embedsvc.mining.score import PairScores, score_pairs
from embedsvc.textfiles import iterate_lines
from embedsvc.tokens import Truncate


@dataclass(frozen=True)
class ScoringOptions:
    """How to score a file.

    threshold: pairs below it, and those without a score, are left out; None keeps all.
    filters: names of filters of pairs (`PAIR_FILTERS`); the first that would drop a pair is said in a column
    "reason"; none leaves anything out.
    calibration: a file of `read_calibration`, for a column "probability"; it is right as far as the bitext is
    like what was calibrated on.
    source_pool, target_pool: files of lines that count as neighbours besides the bitext's own.
    The others as for `score_pairs`.
    """

    margin: Margin = "ratio"
    k: int = 4
    threshold: float | None = None
    filters: tuple[str, ...] = ()
    calibration: Path | None = None
    source_pool: Path | None = None
    target_pool: Path | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    truncate: Truncate = "none"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInputError for a threshold that is no number or an unknown filter."""
        if self.threshold is not None and math.isnan(self.threshold):
            raise InvalidInputError("threshold is not a number", param="threshold")
        for name in self.filters:
            if name not in PAIR_FILTERS:
                raise InvalidInputError(
                    f"filter {name!r} is none of pairs; choose among {', '.join(PAIR_FILTERS)}",
                    param="filters",
                )


@dataclass(frozen=True)
class ScoreSummary:
    """What came out: pairs read, written, without a score, by reason; columns whose old values are gone."""

    out: Path
    read: int
    written: int
    without_score: int
    reasons: dict[str, int] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


def score_file(
    bitext: Bitext,
    out: Path,
    options: ScoringOptions | None = None,
    *,
    encoder: Encoder | None = None,
    progress: bool | None = None,
) -> ScoreSummary:
    """Write the pairs of a bitext with their score and cosine to ``out``, in their order.

    The texts and the vectors of the distinct ones are held in memory. A pair with a blank side, or one
    without any token that the model knows, has no score. encoder defaults to the bundled model.
    Raises InvalidInputError naming file and line, StorageError when the disk is full.
    """
    options = options or ScoringOptions()
    pools = (options.source_pool, options.target_pool, options.calibration)
    inputs = [path for path in (bitext.path, bitext.target_path, *pools) if path is not None]
    check_output(out, OutputInfo(bitext.source_language, bitext.target_language), inputs)
    calibration = (
        None if options.calibration is None else read_calibration(options.calibration, options.margin)
    )
    texts = list(bitext.texts())
    if not texts:
        raise InvalidInputError(f"{bitext.path} has no pair")
    found = _scores(bitext, texts, options, encoder, progress)
    columns: dict[str, list[Any]] = {"score": numbers(found.scores)}
    if calibration is not None:
        columns["probability"] = numbers(calibration.probabilities(found.scores))
    columns["cosine"] = numbers(found.cosines)
    if options.filters:
        columns["reason"] = _reasons(texts, options.filters)
    added = AddedColumns(
        values=columns,
        kept=_kept(found.scores, options.threshold),
        stale={"probability": None, "margin": options.margin},
    )
    _, first = next(bitext.rows())
    written = rewrite(bitext, out, added)
    lost = int(np.isnan(found.scores).sum())
    reasons = Counter(reason for reason in columns.get("reason", ()) if reason is not None)
    return ScoreSummary(
        out, len(texts), written, lost, dict(sorted(reasons.items())), added.replaced([*first])
    )


def _reasons(texts: Sequence[tuple[str, str]], filters: tuple[str, ...]) -> list[str | None]:
    """Return the first filter that would drop each pair; None where none would, or a side is blank."""
    normal = [(duplicate_key(source), duplicate_key(target)) for source, target in texts]
    factor = length_factor(pair for pair in normal if all(pair))
    return [pair_reason(*pair, filters, length_factor=factor) if all(pair) else None for pair in normal]


def _scores(
    bitext: Bitext,
    texts: Sequence[tuple[str, str]],
    options: ScoringOptions,
    encoder: Encoder | None,
    progress: bool | None,
) -> PairScores:
    source, target = zip(*texts, strict=True)
    try:
        return score_pairs(
            source,
            target,
            encoder=encoder,
            margin=options.margin,
            k=options.k,
            source_pool=_pool(options.source_pool),
            target_pool=_pool(options.target_pool),
            prompt_name=options.prompt_name,
            prompt=options.prompt,
            dimensions=options.dimensions,
            truncate=options.truncate,
            batch_tokens=options.batch_tokens,
            progress=progress,
        )
    except InvalidInputError as error:
        raise _located(error, bitext, options) from error


def _pool(path: Path | None) -> list[str]:
    return [] if path is None else [line for _, line in iterate_lines(path)]


def _located(error: InvalidInputError, bitext: Bitext, options: ScoringOptions) -> InvalidInputError:
    """The library's error about ``source[row]``, as an error about a place in a file."""

    def place(found: re.Match[str]) -> str:
        row = int(found[2])
        if found[1].endswith("_pool"):
            return f"{getattr(options, found[1])} line {row + 1}"
        number, _ = next(islice(bitext.rows(), row, None))
        path = bitext.target_path if found[1] == "target" and bitext.target_path else bitext.path
        return f"{path} {bitext.unit} {number}, {found[1]},"

    message = re.sub(r"\b((?:source|target)(?:_pool)?)\[(\d+)\]", place, error.message)
    return type(error)(message, param=error.param)


def _kept(scores: NDArray[np.float32], threshold: float | None) -> NDArray[np.bool_]:
    if threshold is None:
        return np.ones(len(scores), bool)
    kept: NDArray[np.bool_] = scores >= threshold
    return kept
