"""The command `python -m indexing`: build, search, describe and check an index of arrays."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.array_index import build_shards_for_arrays, open_array_index, unit_rows
from indexing.command_input import byte_count, read_array, read_labels
from indexing.command_report import BuildProgress, graphs, say, shortfalls, table
from indexing.errors import IndexingError
from indexing.neighbours import Neighbours
from indexing.shard_options import ShardOptions

_BATCH = 1024  # queries searched at a time

_BUILD = """Index the rows of a .npy file. A large group (language) gets a graph of its own, smaller ones are
scanned, and a graph of all rows answers searches of all groups. Every graph is
tuned on rows held out of it until it finds --recall of the true --k neighbours, in every group. --memory
is what the graphs may take together; the exact vectors lie in a memory-mapped file and do not count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; return its exit code: 0, or 1 after one line about an error."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.threads is not None:
            _set_threads(arguments.threads)
        arguments.run(arguments)
    except IndexingError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {error.filename}: {error.strerror}")
        return 1
    return 0


def run_process() -> int:
    """Run the command as this process: asked to end, it removes what is half written."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _set_threads(threads: int) -> None:
    _check_least("threads", threads, 1)
    faiss.omp_set_num_threads(threads)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise IndexingError(f"{name} is {value}; expected at least {least}")


def _build(arguments: argparse.Namespace) -> None:
    vectors = read_array(arguments.vectors)
    labels = None if arguments.langs is None else read_labels(arguments.langs)
    if labels is not None and len(labels) != len(vectors):
        raise IndexingError(
            f"{arguments.langs} has {len(labels)} lines; {arguments.vectors} has {len(vectors)} rows"
        )
    built = build_shards_for_arrays(
        vectors,
        labels,
        arguments.out,
        _options(arguments),
        normalize=arguments.normalize,
        overwrite=arguments.overwrite,
        progress=BuildProgress(vectors.shape[1]),
    )
    print(table(built, arguments.out))
    for sentence in shortfalls(built.index):
        say(f"warning: {sentence}")


def _options(arguments: argparse.Namespace) -> ShardOptions:
    options = ShardOptions(
        recall=arguments.recall,
        k=arguments.k,
        graph=None,
        memory_bytes=None if arguments.memory is None else byte_count(arguments.memory),
    )
    if arguments.exact_rows is None:
        return options
    _check_least("exact-rows", arguments.exact_rows, 0)
    return replace(options, flat_rows=arguments.exact_rows, shard_rows=arguments.exact_rows)


def _search(arguments: argparse.Namespace) -> None:
    write = _WRITERS.get(arguments.out.suffix)
    if write is None:
        raise IndexingError(f"{arguments.out} ends in none of {', '.join(_WRITERS)}")
    if not arguments.out.parent.is_dir():
        raise IndexingError(f"{arguments.out}: there is no folder {arguments.out.parent}")
    queries = read_array(arguments.queries)
    opened = open_array_index(arguments.index, verify=False)
    found = [
        opened.search(batch, arguments.k, labels=arguments.lang)
        for batch in _batches(queries, normalize=arguments.normalize)
    ]
    scores, rows = (np.concatenate(parts) for parts in zip(*((f.scores, f.rows) for f in found), strict=True))
    with arguments.out.open("wb") as file:
        write(file, Neighbours(scores, rows))


def _info(arguments: argparse.Namespace) -> None:
    opened = open_array_index(arguments.index, verify=False)
    print(f"{opened.index.count:,} vectors of dimension {opened.index.dimension}")
    for name, value in opened.extra["options"].items():
        print(f"{name}: {value}")
    print(f"\n{table(opened, arguments.index)}")
    if opened.index.calibrations:
        print(f"\n{graphs(opened)}")


def _verify(arguments: argparse.Namespace) -> None:
    opened = open_array_index(arguments.index, verify=True)
    print(f"{arguments.index}: {opened.index.count:,} vectors, every file is the one that was written")


def _batches(queries: NDArray[Any], *, normalize: bool) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(queries), _BATCH):
        yield unit_rows(queries, start, start + _BATCH, normalize=normalize, name="queries")


def _write_npz(file: IO[bytes], found: Neighbours) -> None:
    np.savez(file, rows=found.rows, scores=found.scores)


def _write_tsv(file: IO[bytes], found: Neighbours) -> None:
    file.write(b"query\trank\trow\tscore\n")
    for query, rank in zip(*np.nonzero(found.rows >= 0), strict=True):
        line = f"{query}\t{rank + 1}\t{found.rows[query, rank]}\t{found.scores[query, rank]:.6f}\n"
        file.write(line.encode())


_WRITERS: dict[str, Callable[[IO[bytes], Neighbours], None]] = {".npz": _write_npz, ".tsv": _write_tsv}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m indexing", description="Nearest neighbours of unit vectors, for groups of any size."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands)
    _add_search(commands)
    for name, run, text in (
        ("info", _info, "print groups, kinds, calibrations and sizes"),
        ("verify", _verify, "read every file and compare its hash"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("index", type=Path)
        command.set_defaults(run=run, threads=None)
    return parser


def _add_build(commands: Any) -> None:
    build = commands.add_parser("build", help="index the rows of a .npy file", description=_BUILD)
    build.add_argument("vectors", type=Path, metavar="VECTORS.npy", help="(n, dim), float16 or float32")
    build.add_argument("--langs", type=Path, help="a label per line, for each row (default: one group)")
    build.add_argument("--out", type=Path, required=True, help="the folder to write")
    build.add_argument("--recall", type=float, default=0.95, help="wanted of every group (default: 0.95)")
    build.add_argument("--k", type=int, default=10, help="neighbours that recall counts (default: 10)")
    build.add_argument("--memory", help="of all graphs, such as 2GiB, 500MB or a number of bytes")
    build.add_argument(
        "--exact-rows",
        type=int,
        help="scan groups of up to so many rows, without graphs (default: 5000, and 10000 rows in all)",
    )
    build.add_argument("--normalize", action="store_true", help="scale rows to length 1, else refuse others")
    build.add_argument("--overwrite", action="store_true", help="replace the index in the folder, if any")
    _add_threads(build)
    build.set_defaults(run=_build)


def _add_search(commands: Any) -> None:
    text = "find the nearest rows of queries, by the row numbers of the array that was indexed"
    search = commands.add_parser("search", help=text, description=text)
    search.add_argument("index", type=Path, help="the folder that build wrote")
    search.add_argument("queries", type=Path, metavar="QUERIES.npy", help="(q, dim), as the vectors")
    search.add_argument("--k", type=int, default=10, help="neighbours per query (default: 10)")
    search.add_argument("--lang", nargs="+", metavar="LABEL", help="only rows with one of these labels")
    search.add_argument("--out", type=Path, required=True, help="neighbours.npz (rows, scores) or .tsv")
    search.add_argument("--normalize", action="store_true", help="scale queries to length 1")
    _add_threads(search)
    search.set_defaults(run=_search)


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, help="threads that work (default: all cores)")
