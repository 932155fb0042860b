"""The job kind `score`: the command `embedsvc score` for HTTP clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.jobs.kind import Input, JobKind, JobTask
from embedsvc.mining.bitext import Bitext, BitextFields, ScoringOptions, score_file
from embedsvc.mining.margin import MARGINS, Margin
from embedsvc.mining.options import check_choice
from embedsvc.mining.progress import Step
from embedsvc.tokens import Truncate


@dataclass(frozen=True)
class ScoreJobOptions:
    """Named as the options of `embedsvc score`."""

    src_field: str | int = "src"
    tgt_field: str | int = "tgt"
    header: bool | None = None
    src_lang: str | None = None
    tgt_lang: str | None = None
    margin: Margin = "ratio"
    k: int = 4
    threshold: float | None = None
    filters: tuple[str, ...] = ()
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    truncate: Truncate = "none"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        check_choice("margin", self.margin, MARGINS)
        if self.k < 1:
            raise InvalidInputError(f"k = {self.k}; it must be at least 1", param="k")
        self.scoring(None, None)  # checks the others

    def scoring(self, source_pool: Path | None, target_pool: Path | None) -> ScoringOptions:
        """Return the options of `score_file`."""
        return ScoringOptions(
            margin=self.margin,
            k=self.k,
            threshold=self.threshold,
            filters=self.filters,
            source_pool=source_pool,
            target_pool=target_pool,
            prompt_name=self.prompt_name,
            prompt=self.prompt,
            dimensions=self.dimensions,
            truncate=self.truncate,
            batch_tokens=self.batch_tokens,
        )


def _score(task: JobTask) -> dict[str, Any]:
    options: ScoreJobOptions = task.options
    pairs, source, target = (task.file(name) for name in ("pairs", "source", "target"))
    if (pairs is None) == (source is None) or (source is None) != (target is None):
        raise InvalidInputError("give pairs, or source and target", param="pairs")
    path = pairs or source
    assert path is not None
    fields = BitextFields(options.src_field, options.tgt_field, options.header)
    bitext = Bitext(path, target, fields, options.src_lang, options.tgt_lang)
    scoring = options.scoring(task.file("source_pool"), task.file("target_pool"))
    task.report(Step("score", 0, 1, "files"))
    found = score_file(bitext, task.out, scoring, encoder=task.open_encoder(), progress=False)
    task.report(Step("score", 1, 1, "files"))
    return {
        "read": found.read,
        "written": found.written,
        "without_score": found.without_score,
        "reasons": found.reasons,
    }


SCORE = JobKind(
    about="score pairs of sentences that are given, in their order",
    inputs=(
        Input("pairs", "a .tsv, .jsonl, .parquet, .tmx or .xliff file of pairs"),
        Input("source", "in place of pairs: a file of lines"),
        Input("target", "and one whose line n is the translation of line n"),
        Input("source_pool", "lines that count as neighbours of targets, too"),
        Input("target_pool", "lines that count as neighbours of sources, too"),
    ),
    needs=(("pairs", "source"), ("pairs", "target")),
    options=ScoreJobOptions,
    run=_score,
    best_first=False,
    formats=("jsonl", "tsv", "parquet", "tmx", "xliff"),
)
