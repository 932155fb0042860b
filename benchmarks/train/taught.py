"""The teacher's vectors of the English sentences, for the stock side.    python -m train.taught JOB.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from train.samples import read_pairs
from training.teacher import open_teacher, teach
from training.teacher_config import TeacherConfig


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config = TeacherConfig.model_validate(job["teacher"])
    texts = list(dict.fromkeys(english for english, _, _ in read_pairs(Path(job["data"]))))
    encoder = open_teacher(config, dimension=job["dimension"])
    teach(encoder, config, texts, Path(job["out"]), dimension=job["dimension"], progress=True)


if __name__ == "__main__":
    main()
