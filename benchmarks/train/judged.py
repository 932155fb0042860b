"""The evaluation of all models on the same items.    python -m train.judged JOB.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from embedsvc import load_encoder
from training.evaluation.run import evaluate_models


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    evaluate_models(
        map(load_encoder, job["models"]),
        job["tasks"],
        Path(job["data"]),
        Path(job["out"]),
        tell=lambda report, _: print(
            f"{report.task} {report.model}: {report.main} {report.mean[report.main]:.2f}", flush=True
        ),
    )


if __name__ == "__main__":
    main()
