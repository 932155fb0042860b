"""Collections beside bare FAISS, milvus-lite and LanceDB on the same documents, as Markdown.

    python benchmarks/search.py --peers-venv VENV

VENV has `pymilvus milvus-lite==3.2.2 lancedb==0.40.0 numpy`; `--make-venv` makes it first; without VENV
there are no peers but FAISS. The documents are made from a seed: clustered vectors of 384 dimensions in 12
languages of uneven size, texts of some 150 characters; the queries are none of them. Everybody is a
process of its own that computes in one thread; they take turns, in opposite order every other round.
Processor time is what is compared: it changes less on a busy machine. Printed is the median (range) of
the rounds, and of the rounds' ratios. Data and stores are kept in --work for the next run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from retrieve.dataset import EVERYTHING, RAREST, Within, make_dataset
from retrieve.others import batch_table, hybrid_table, ingest_table, opening_table
from retrieve.process import Recipe, Worker, running
from retrieve.single import cost_table, recall_tables
from serving import machine

SECTIONS = ("recall", "single", "batch", "ingest", "open", "hybrid")
_TRAINED_ROWS = 20_000  # below, LanceDB takes longer to train product quantisation than all the rest takes
PEERS = ("pymilvus", "milvus-lite==3.2.2", "lancedb==0.40.0", "faiss-cpu", "numpy")
TARGETS = {
    "recall": "target: 0.95 everywhere, 0.99 for the rarest language",
    "single": "targets: within 2 x of FAISS at equal recall; milvus-lite 20 x, LanceDB 5 x dearer",
    "batch": "target: 4 x FAISS",
    "ingest": "target: 10,000 documents/s",
    "open": "target: 1 s",
    "hybrid": "no target",
}


class Benchmark:
    """What was asked for, and one method per section."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.rounds = options.rounds
        self.data = make_dataset(work / "data", options.rows, options.queries)
        self.work = work / self.data.fingerprint  # stores of other data are not taken for this one's

    def ours(self, store: str = "collection") -> Recipe:
        return Recipe("embedsvc", "ours", self.work / store)

    def peers(self, kinds: Sequence[str], store: str = "") -> list[Recipe]:
        """Return the peers that are installed."""
        python = self.options.peers_venv and self.options.peers_venv.absolute() / "bin" / "python"
        found = []
        for package, recipe in (
            ("milvus_lite", Recipe("milvus-lite HNSW", "milvus", self.work / f"{store}milvus.db", python)),
            *(
                (
                    "lancedb",
                    Recipe(f"LanceDB {kind}", "lance", self.work / f"{store}lance_{kind}", python, (kind,)),
                )
                for kind in kinds
            ),
        ):
            if python and _has(python, package):
                found.append(recipe)
            else:
                _note(f"{recipe.name}: not measured, no {package} in --peers-venv")
        return found

    @contextmanager
    def started(self, *recipes: Recipe) -> Iterator[list[Worker]]:
        """Start workers and let each store and index the documents, unless it has."""
        with ExitStack() as stack:
            workers = [stack.enter_context(running(recipe, self.data.folder)) for recipe in recipes]
            for worker in workers:
                took = worker.ask("build")
                _note(f"{worker.name}: " + ", ".join(f"{name} {value:.1f}" for name, value in took.items()))
            yield workers

    def recall(self) -> None:
        with self.started(self.ours()) as (ours,):
            _print("recall", "Recall@10 of search_vector", recall_tables(ours, self.data))

    def single(self) -> None:
        bare = Recipe("FAISS HNSW-SQ8", "bare_faiss", self.work / "bare")
        kinds: tuple[str, ...] = ("hnsw_sq", "flat")
        if self.options.rows >= _TRAINED_ROWS:
            kinds = ("ivf_pq", *kinds)
        with self.started(self.ours(), bare, *self.peers(kinds)) as workers:
            for within in (EVERYTHING, Within(language=RAREST)):
                rows = cost_table(self.data, workers[0], workers[1], workers[2:], self.rounds, within)
                _print("single", f"One query at a time, {within}", rows)

    def batch(self) -> None:
        with self.started(self.ours(), Recipe("FAISS", "bare_faiss", self.work / "bare")) as (ours, bare):
            _print("batch", "Batches", batch_table(self.data, ours, bare, self.rounds))

    def ingest(self) -> None:
        recipes = [self.ours("new-collection"), *self.peers(("flat",), "new-")]
        with ExitStack() as stack:
            workers = [stack.enter_context(running(recipe, self.data.folder)) for recipe in recipes]
            rounds = min(self.rounds, 3)
            _print("ingest", "Ingest", ingest_table(self.data, workers, self.work, rounds))

    def open(self) -> None:
        with self.started(self.ours()) as (ours,):
            ours.ask("close")
            _print("open", "Opening", opening_table(self.data, ours.store, self.rounds))

    def hybrid(self) -> None:
        with self.started(self.ours()) as (ours,):
            _print("hybrid", "By meaning, words, both", hybrid_table(self.data, ours, self.rounds, 100))


def _has(python: Path, package: str) -> bool:
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", look], check=False).returncode == 0


def make_venv(folder: Path) -> None:
    """Make an environment with the peers."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PEERS], check=True)


def _print(section: str, title: str, rows: str) -> None:
    print(f"\n### {title}; {TARGETS[section]}; load average {os.getloadavg()[0]:.1f}\n\n{rows}", flush=True)


def _note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _sections(text: str) -> list[str]:
    chosen = text.split(",")
    for section in chosen:
        if section not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{section!r} is no section; there are {', '.join(SECTIONS)}")
    return chosen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-venv", type=Path, metavar="VENV")
    parser.add_argument("--make-venv", action="store_true", help="make VENV first")
    parser.add_argument("--work", type=Path, help="keep data and stores here (default: a temporary folder)")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1_200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", type=_sections, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}"
    )
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.make_venv:
        make_venv(options.peers_venv)
    with tempfile.TemporaryDirectory() as temporary:
        benchmark = Benchmark(options, options.work or Path(temporary))
        print(f"`python {shlex.join(sys.argv)}`\n\n{machine()}\n\n{benchmark.data.shape}", flush=True)
        runs: Mapping[str, Callable[[], None]] = {
            "recall": benchmark.recall,
            "single": benchmark.single,
            "batch": benchmark.batch,
            "ingest": benchmark.ingest,
            "open": benchmark.open,
            "hybrid": benchmark.hybrid,
        }
        for section in options.only:
            runs[section]()


if __name__ == "__main__":
    main()
