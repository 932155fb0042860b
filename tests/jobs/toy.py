"""A small job that does what it is told: counts words in steps that outlive a kill, fails, dies, fills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.jobs.kind import Input, JobKind, JobTask
from embedsvc.jobs.kinds import KINDS
from embedsvc.mining.progress import Step
from embedsvc.textfiles import atomic_write


@dataclass(frozen=True)
class ToyOptions:
    """``pause_s`` before each line; ``what`` happens at line ``at``, in the first ``times`` attempts."""

    pause_s: float = 0.0
    what: str = ""
    at: int = 0
    times: int = 99
    note: str = ""


def run(task: JobTask) -> dict[str, Any]:
    """Write each line's words, counted; the counts of finished lines are kept in the work folder."""
    options: ToyOptions = task.options
    lines = [line for path in task.inputs["source"] for line in path.read_text().splitlines()]
    starts = task.work / "starts"
    starts.open("a").write(f"{os.getpid()}\n")
    print("started", file=sys.stderr, flush=True)
    rows = []
    for number, line in enumerate(lines):
        task.report(Step("count", number, len(lines), "lines"))
        kept = task.work / str(number)
        if not kept.exists():
            time.sleep(options.pause_s)
            if number == options.at and options.what:
                misbehave(options, task.work, len(starts.read_text().split()))
            with atomic_write(kept) as file:
                file.write(str(len(line.split())).encode())
        rows.append({"score": int(kept.read_text()), "line": number + 1, "text": line})
    task.report(Step("write", 0, 1, "files"))
    rows.sort(key=lambda row: -row["score"])
    with atomic_write(task.out) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return {"lines": len(rows), "starts": len(starts.read_text().split())}


def misbehave(options: ToyOptions, work: Path, starts: int) -> None:
    if options.what == "fail":
        raise InvalidInputError("source.txt line 3: a wrong word", param="source")
    if options.what == "crash":
        raise RuntimeError("secret details")
    if options.what == "die" and starts <= options.times:
        os.kill(os.getpid(), signal.SIGKILL)
    if options.what == "fork":
        child = subprocess.Popen(["sleep", "1000"])
        print(f"child {child.pid}", flush=True)
    if options.what == "chatter":
        for _ in range(40):
            print("x" * 65_000, flush=True)
    if options.what == "fill":
        (work / "large").write_bytes(bytes(64 << 20))


KINDS["toy"] = JobKind(
    about="count the words of lines",
    inputs=(Input("source", "lines", many=True),),
    needs=(("source",),),
    options=ToyOptions,
    run=run,
)
MAIN = "import tests.jobs.toy; from embedsvc.cli import main; main()"
