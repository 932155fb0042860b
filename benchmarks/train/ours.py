"""Our side, one training in a process of its own.    python -m train.ours JOB.json

The job: the recipe, whether its losses that need a teacher stay, where the data are, the folder to write and,
where there is one, the tokenizer to take.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from train.clock import Clock
from train.samples import read_pairs
from training.config import Recipe
from training.learner import Learner
from training.trainer import train

_TOKENIZED_PAIRS = 20_000


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out, data = Path(job["out"]), Path(job["data"])
    if job["tokenizer"] and not (out / "run" / "tokenizer.json").exists():
        (out / "run").mkdir(parents=True, exist_ok=True)
        shutil.copy(job["tokenizer"], out / "run" / "tokenizer.json")
    clock = Clock()
    learn = Learner.learn

    def timed(*arguments: Any) -> dict[str, float]:
        values = learn(*arguments)
        clock.tick()
        return values

    Learner.learn = timed  # type: ignore[method-assign]
    train(asked_for(job), out, data, progress=False)
    clock.write(Path(job["result"]), tokenize_s=tokenize_s(out / "tokenizer.json", data))


def asked_for(job: dict[str, Any]) -> Recipe:
    """Return the recipe, or what is left of it without a teacher."""
    recipe = Recipe.model_validate(job["recipe"])
    if job["taught"]:
        return recipe
    losses = [loss.model_dump() for loss in recipe.objective if not loss.needs_teacher]
    rest = {key: value for key, value in job["recipe"].items() if key not in ("loss", "losses", "teacher")}
    return Recipe.model_validate({**rest, "losses": losses})


def tokenize_s(file: Path, data: Path) -> float:
    """Return the seconds it takes to tokenize a pair, which the stock trainer does in its steps."""
    tokenizer = Tokenizer.from_file(str(file))
    texts = [
        text for _, pair in zip(range(_TOKENIZED_PAIRS), read_pairs(data), strict=False) for text in pair[::2]
    ]
    begin = time.process_time()
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        _ = encoding.ids
    return 2 * (time.process_time() - begin) / len(texts)


if __name__ == "__main__":
    main()
