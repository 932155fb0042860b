"""Trainings as processes, each done once: a job's result stays in the work folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The work folder, and how processes are started."""

    folder: Path
    stock_python: Path
    threads: int

    def model(self, name: str) -> Path:
        return self.folder / "models" / name

    def result(self, name: str) -> Result | None:
        """Return what a job said when it was done."""
        path = self._result(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _result(self, name: str) -> Path:
        return self.folder / "jobs" / f"{name}.result.json"

    def ours(self, name: str, job: Result) -> Result:
        """Train our side; see `train.ours`."""
        return self._once(name, [sys.executable, "-m", "train.ours"], job)

    def stock(self, name: str, job: Result) -> Result:
        """Train the stock side; see `train/stock.py`."""
        return self._once(name, [str(self.stock_python), str(Path(__file__).with_name("stock.py"))], job)

    def _once(self, name: str, command: Sequence[str], job: Result) -> Result:
        job = {**job, "out": str(self.model(name)), "result": str(self._result(name))}
        file = self.folder / "jobs" / f"{name}.json"
        if (found := self.result(name)) is not None:
            if json.loads(file.read_text(encoding="utf-8")) != job:
                raise SystemExit(f"{file} is another job; take another --work or remove it and its result")
            return found
        self.run(command, file, job)
        found = self.result(name)
        assert found is not None
        return found

    def run(self, command: Sequence[str], file: Path, job: Result) -> None:
        """Write the job and run a process on it; its own output goes to standard error."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(job, indent=1, ensure_ascii=False), encoding="utf-8")
        print(f"{file.stem} ...", file=sys.stderr, flush=True)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),  # `training` is the package
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        subprocess.run([*command, str(file)], cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
