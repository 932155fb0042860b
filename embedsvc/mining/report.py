"""What a mining run found, for a person to judge: histogram, samples per score band, suspicious pairs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.margin import CandidatePairs

Text = Callable[[int], str]
LanguageOf = Callable[[str], str | None]
Suspicion = Literal["copy", "no letters", "same language"]

_BANDS, _SUSPICIOUS = 20, 20
_INSPECTED = 1_000  # highest pairs looked at for suspicious ones
_BAR = 40


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair to look at."""

    score: float
    source: str
    target: str
    suspicion: Suspicion | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """The pairs scoring from ``low`` to ``high``: how many, and some of them."""

    low: float
    high: float
    pairs: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class MiningReport:
    """Counts of the pairs, score bands from the highest down, and high scores that are probably wrong.

    High scores deserve distrust: copies, bare numbers and texts of one language on both sides score best.
    ``inspected`` of the highest pairs were looked at; ``suspicious_counts`` are of those.
    """

    pairs: int
    kept: int
    threshold: float
    bands: tuple[Band, ...]
    inspected: int
    suspicious_counts: dict[str, int]
    suspicious: tuple[Sample, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Return the report as lines for a terminal."""
        lines = [
            f"{self.kept:,} of {self.pairs:,} pairs score at least {self.threshold:.4g} "
            "(before filters of pairs)"
        ]
        most = max((band.pairs for band in self.bands), default=1)
        for band in self.bands:
            bar = "#" * round(_BAR * band.pairs / max(most, 1))
            lines.append(f"{band.low:9.4f} to {band.high:9.4f} {band.pairs:10,}  {bar}")
        counts = ", ".join(f"{count} {name}" for name, count in self.suspicious_counts.items()) or "none"
        lines.append(f"suspicious among the {self.inspected:,} highest: {counts}")
        lines += [
            f"  {pair.score:.4f} {pair.suspicion}: {pair.source} | {pair.target}" for pair in self.suspicious
        ]
        return "\n".join(lines) + "\n"


def mining_report(
    pairs: CandidatePairs,
    texts: tuple[Text, Text],
    *,
    threshold: float,
    language_of: LanguageOf | None = None,
) -> MiningReport:
    """Return the report on pairs that come best first, extracted without a threshold.

    ``texts`` give the text of a source row and of a target row. ``language_of`` names the language of a text
    or None; without it nothing is said about languages.
    """
    positions = list(range(min(len(pairs), _INSPECTED)))
    samples = [_sample(pairs, texts, position, language_of) for position in positions]
    suspicious = [sample for sample in samples if sample.suspicion]
    names = sorted({sample.suspicion for sample in suspicious if sample.suspicion})
    return MiningReport(
        pairs=len(pairs),
        kept=int((pairs.scores >= threshold).sum()),
        threshold=threshold,
        bands=tuple(_bands(pairs, texts)),
        inspected=len(samples),
        suspicious_counts={name: sum(sample.suspicion == name for sample in suspicious) for name in names},
        suspicious=tuple(suspicious[:_SUSPICIOUS]),
    )


def suspicion(source: str, target: str, language_of: LanguageOf | None = None) -> Suspicion | None:
    """Return why a pair with a high score is probably no translation, or None."""
    if duplicate_key(source).casefold() == duplicate_key(target).casefold():
        return "copy"
    if not (_has_letter(source) and _has_letter(target)):
        return "no letters"
    if language_of is not None:
        language = language_of(source)
        if language is not None and language == language_of(target):
            return "same language"
    return None


def _has_letter(text: str) -> bool:
    return any(unicodedata.category(character)[0] == "L" for character in text)


def _sample(
    pairs: CandidatePairs, texts: tuple[Text, Text], position: int, language_of: LanguageOf | None
) -> Sample:
    source, target = texts[0](int(pairs.source_rows[position])), texts[1](int(pairs.target_rows[position]))
    return Sample(float(pairs.scores[position]), source, target, suspicion(source, target, language_of))


def _bands(pairs: CandidatePairs, texts: tuple[Text, Text]) -> Iterable[Band]:
    """Yield bands of equal width from the best score down, with samples spread evenly over each.

    The few scores beyond the middle 99.8 % would make all bands wide; they go to the outer bands.
    """
    if not len(pairs):
        return
    low, high = np.quantile(pairs.scores, [0.001, 0.999]).tolist()
    edges = np.linspace(low, high, _BANDS + 1)[1:-1][::-1]
    starts = [0, *np.searchsorted(-pairs.scores, -edges, side="right").tolist(), len(pairs)]
    for begin, end in pairwise(starts):
        if begin == end:
            continue
        samples = tuple(_sample(pairs, texts, position, None) for position in _spread(begin, end))
        yield Band(float(pairs.scores[end - 1]), float(pairs.scores[begin]), end - begin, samples)


def _spread(begin: int, end: int) -> list[int]:
    return sorted({begin, (begin + end - 1) // 2, end - 1})
