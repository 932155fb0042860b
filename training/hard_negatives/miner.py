"""Hard negatives of parallel data: encode, find neighbours, choose, write. Read top to bottom."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedsvc.encoder import Encoder
from embedsvc.mining.neighbour_stage import find_neighbours
from embedsvc.mining.progress import Report, Step, ignore
from embedsvc.mining.work_folder import check_job, work_folder
from embedsvc.reranker import Reranker
from embedsvc.textfiles import write_json
from indexing import BothWays, VectorShards
from training.data_config import DataConfig, PairFiles
from training.hard_negatives.choosing import Chooser
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import (
    AnchorSide,
    NegativeRecord,
    check_negatives_name,
    write_negatives,
)
from training.hard_negatives.report import NegativesReport
from training.hard_negatives.rescoring import CANDIDATES, rescored
from training.hard_negatives.searches import Search, depth, planned_searches
from training.hard_negatives.texts import DistinctTexts, distinct_texts
from training.hard_negatives.vectors import copied, encode_texts
from training.pair_files import file_facts, pair_files
from training.pair_store import stored_pairs

_SIDES: tuple[AnchorSide, ...] = ("english", "other")


@dataclass(frozen=True, eq=False)
class Models:
    """What finds negatives, and what may then reject some of them."""

    encoder: Encoder
    reranker: Reranker | None = None


def mine_negatives(
    data: Sequence[Path | PairFiles],
    models: Models,
    out: Path,
    options: NegativeOptions | None = None,
    *,
    work: Path | None = None,
    report: Report = ignore,
) -> NegativesReport:
    """Write the hard negatives of every pair of the files to ``out``, and all about them to its manifest.

    What is computed on the way stays in ``work``, where a killed run goes on; without it, it is removed.
    Raises InvalidInputError for options that do not fit the data, or a work folder of another run.
    """
    options = options or NegativeOptions()
    check_negatives_name(out)
    counts = NegativesReport(options.count)
    made_by = {"model": models.encoder.name, "fingerprint": models.encoder.fingerprint}
    with work_folder(work, out) as folder:
        check_job(folder, {"task": "negatives", **made_by, "languages": options.languages})
        sections = [PairFiles(files=str(one.absolute())) if isinstance(one, Path) else one for one in data]
        files = pair_files(sections, Path())
        of_data = file_facts(files)
        config = DataConfig(pairs=[file.reading for file in files])
        texts = distinct_texts(stored_pairs(files, config, of_data, folder / "data"))
        searches = planned_searches(texts, options.languages)
        run = _Run(texts, models, options, counts, report)
        write_negatives(out, run.records(searches, folder, keep=work is not None))
    if models.reranker is not None:
        made_by |= {"reranker": models.reranker.name, "reranker_fingerprint": models.reranker.fingerprint}
    facts = {**made_by, "data": of_data, "options": asdict(options), **counts.facts()}
    write_json(out.with_name(out.name + ".manifest.json"), facts)
    return counts


@dataclass(frozen=True, eq=False)
class _Run:
    texts: DistinctTexts
    models: Models
    options: NegativeOptions
    counts: NegativesReport
    report: Report

    def records(self, searches: list[Search], folder: Path, *, keep: bool) -> Iterator[NegativeRecord]:
        """Yield the records of one search after the other."""
        encoder, texts = self.models.encoder, self.texts
        english = encode_texts("English", texts.english, encoder, folder / "english", self.report)
        other = encode_texts("translations", texts.other, encoder, folder / "other", self.report)
        progress = _Progress(self.report, searches)
        for number, search in enumerate(searches):
            part, progress.number = folder / f"search-{number}", number
            found = self._neighbours(search, (english, other), part, progress)
            for side in _SIDES:
                if self.options.anchors in (side, "both"):
                    yield from self._judged(Chooser(texts, (english, other), search, found, side, self._wide))
            if not keep:
                shutil.rmtree(part)

    @property
    def _wide(self) -> NegativeOptions:
        """The options, with more negatives wanted where some are going to be rejected."""
        if self.models.reranker is None:
            return self.options
        return replace(self.options, count=CANDIDATES * self.options.count)

    def _neighbours(
        self, search: Search, vectors: tuple[VectorShards, VectorShards], folder: Path, report: Report
    ) -> BothWays:
        x = copied(vectors[0], search.english, folder / "english")
        y = copied(vectors[1], search.other, folder / "other")
        k = depth(self.texts, search, self._wide)
        found = find_neighbours(x, y, k, folder / "neighbours", self.options.search, report)
        sizes = {"english": len(search.english), "translations": len(search.other), "depth": k}
        self.counts.searches[search.name] = {**sizes, **found.facts}
        return found.both

    def _judged(self, chooser: Chooser) -> Iterator[NegativeRecord]:
        for record in chooser.records(self.counts):
            judged = record
            if self.models.reranker is not None:
                judged, rejected = rescored(record, self.models.reranker, self.options)
                self.counts.rejected += rejected
            self.counts.add(judged)
            yield judged


class _Progress:
    """All searches as one stage, measured in scores: how many there will be is known before they begin."""

    def __init__(self, report: Report, searches: list[Search]) -> None:
        self._report = report
        self._scores = [len(search.english) * len(search.other) for search in searches]
        self.number = 0

    def __call__(self, step: Step) -> None:
        done = sum(self._scores[: self.number])
        done += self._scores[self.number] * step.done // max(step.total, 1)
        self._report(Step("search", done // 10**6, sum(self._scores) // 10**6, "million scores"))
