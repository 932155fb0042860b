"""The small transformer that both sides begin with.    python -m train.fresh JOB.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from training.fresh_transformer import write_fresh_folder
from training.model_config import FreshConfig


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tokenizer = Path(job["tokenizer"]).read_text(encoding="utf-8")
    config = FreshConfig.model_validate(job["sizes"])
    write_fresh_folder(Path(job["out"]), config, tokenizer, max_tokens=job["max_tokens"], seed=1)


if __name__ == "__main__":
    main()
