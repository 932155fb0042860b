"""The job kind `mine`: the command `embedsvc mine` for HTTP clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedsvc.jobs.kind import Input, JobKind, JobTask
from embedsvc.mining.options import MiningOptions


def _mine(task: JobTask) -> dict[str, Any]:
    from embedsvc.mining.pipeline import mine_files  # only in the job's own process
    from embedsvc.mining.sides import MiningInputs

    vectors = {name: task.file(f"{name}_vectors") for name in ("source", "target")}
    inputs = MiningInputs(
        source=task.inputs.get("source", ()),
        target=task.inputs.get("target", ()),
        source_vectors=vectors["source"],
        target_vectors=vectors["target"],
        dev=task.file("dev"),
    )
    encoder = task.open_encoder() if inputs.need_encoder else None
    options = task.options
    if options.engine == "local":
        options = replace(options, threads=min(options.threads or task.threads, task.threads))
    found = mine_files(inputs, task.out, options, work=task.work, encoder=encoder, report=task.report)
    return {"pairs": found.pairs, "threshold": found.manifest.get("threshold")}


MINE = JobKind(
    about="find the pairs of sentences of two languages that are translations",
    inputs=(
        Input("source", "files of sentences of one language", many=True),
        Input("target", "files of sentences of the other language", many=True),
        Input("source_vectors", "a .npy file with a vector for each source record"),
        Input("target_vectors", "a .npy file with a vector for each target record"),
        Input("dev", "a .tsv file of pairs known to be right, for calibration"),
    ),
    needs=(("source", "source_vectors"), ("target", "target_vectors")),
    options=MiningOptions,
    run=_mine,
    formats=("jsonl", "tsv", "parquet", "tmx", "xliff"),
)
