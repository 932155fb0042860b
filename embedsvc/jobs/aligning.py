"""The job kind `align`: the command `embedsvc align` for HTTP clients."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from embedsvc.jobs.kind import Input, JobKind, JobTask
from embedsvc.mining.alignment.align import AlignOptions, align_sentences
from embedsvc.mining.alignment.document import Split, read_document
from embedsvc.mining.alignment.files import write_beads
from embedsvc.mining.alignment.vectors import check_max_bead
from embedsvc.mining.progress import Step


@dataclass(frozen=True)
class AlignJobOptions(AlignOptions):
    """Options of `align` and of reading the documents."""

    split: Split = "lines"
    src_lang: str | None = None
    tgt_lang: str | None = None

    def __post_init__(self) -> None:
        check_max_bead(self.max_bead)


def _align(task: JobTask) -> dict[str, Any]:
    options: AlignJobOptions = task.options
    source, target = task.inputs["source"][0], task.inputs["target"][0]
    documents = (
        read_document(source, options.split, options.src_lang),
        read_document(target, options.split, options.tgt_lang),
    )
    task.report(Step("align", 0, 1, "documents"))
    own = AlignOptions(**{field.name: getattr(options, field.name) for field in fields(AlignOptions)})
    beads = align_sentences(documents[0].sentences, documents[1].sentences, task.open_encoder(), own)
    count = write_beads(task.out, beads, documents, (source.name, target.name))
    task.report(Step("align", 1, 1, "documents"))
    return {"beads": count}


ALIGN = JobKind(
    about="align the sentences of two documents that are translations of each other",
    inputs=(
        Input("source", "a document of one language"),
        Input("target", "the same in the other language"),
    ),
    needs=(("source",), ("target",)),
    options=AlignJobOptions,
    run=_align,
    best_first=False,
    formats=("jsonl", "tsv", "parquet", "tmx", "xliff"),
)
