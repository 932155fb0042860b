"""What a user may ask of mining files. The same names in the library, the command and over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.engine import ENGINES, EngineName
from embedsvc.mining.extract import RETRIEVALS, Retrieval
from embedsvc.mining.filters import resolve_filters
from embedsvc.mining.ingest_options import ReadingOptions
from embedsvc.mining.margin import MARGINS, Margin
from embedsvc.tokens import Truncate


@dataclass(frozen=True)
class MiningOptions(ReadingOptions):
    """How to mine files; every field, those of `ReadingOptions` too, is an option of `embedsvc mine`.

    The values are JSON; filters may also be ("default",) or ("none",).

    docs                the files are of documents (.jsonl): pair them, align each pair, mine the rest
    src_lang, tgt_lang  the languages of the two sides; for filters, calibration and output
    margin, k, retrieval  see `margin` and `extract`
    threshold           the least score kept; None is found by calibration
    precision           the share of right pairs wanted; the threshold is chosen for it
    neighbours          "auto", or how neighbours are found (`indexing`)
    memory              bytes that the search for neighbours may take
    threads             None: all that the process may use; with Ray, those of one task
    engine, ray_address where neighbours are found: "local" or on a cluster, "ray" (see `engine`)
    prompt_name … batch_tokens   see `Encoder.encode`
    all_candidates      write every candidate of every sentence, whatever its score
    seed                of what is drawn at random: samples and bootstrap
    """

    docs: bool = False
    src_lang: str | None = None
    tgt_lang: str | None = None
    margin: Margin = "ratio"
    k: int = 4
    retrieval: Retrieval = "max"
    threshold: float | None = None
    precision: float | None = None
    neighbours: str = "auto"
    memory: int = 2 << 30
    threads: int | None = None
    engine: EngineName = "local"
    ray_address: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    truncate: Truncate = "none"
    batch_tokens: int | None = None
    all_candidates: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise InvalidInputError for a value that no input can make right."""
        check_choice("margin", self.margin, MARGINS)
        check_choice("retrieval", self.retrieval, RETRIEVALS)
        check_choice("engine", self.engine, ENGINES)
        if self.ray_address is not None and self.engine != "ray":
            raise InvalidInputError("ray_address is for engine ray", param="ray_address")
        object.__setattr__(self, "filters", resolve_filters(self.filters))
        for name in ("src_lang", "tgt_lang"):
            code = getattr(self, name)
            if code is not None:
                object.__setattr__(self, name, normalize_language(code))
        if self.k < 1:
            raise InvalidInputError(f"k = {self.k}; it must be at least 1", param="k")
        if self.threshold is not None and math.isnan(self.threshold):
            raise InvalidInputError("threshold is not a number", param="threshold")
        if self.threshold is not None and math.isinf(self.threshold):  # no JSON manifest can hold it
            raise InvalidInputError(f"threshold = {self.threshold}; it must be finite", param="threshold")
        if self.precision is not None and not 0 < self.precision < 1:
            raise InvalidInputError(
                f"precision = {self.precision:g}; it must lie between 0 and 1", param="precision"
            )
        if self.precision is not None and self.threshold is not None:
            raise InvalidInputError("give precision or threshold, not both", param="precision")


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raise InvalidInputError for a value that is none of those known."""
    if value not in known:
        raise InvalidInputError(f"{name} {value!r} is unknown; choose {', '.join(known)}", param=name)
