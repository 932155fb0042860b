import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from indexing_reference import brute_force, rows_with_languages

from indexing import Hnsw, ShardedIndex, build_calibrated, open_array_index, recall_at_k, save_shards
from indexing.command import main
from indexing.command_input import byte_count
from indexing.command_report import BuildProgress
from indexing.shard_options import GraphStep

ROOT = Path(__file__).parents[2]
VECTORS, LANGUAGES = rows_with_languages(1500, 96, seed=1)
LABELS = np.array(["en", "de", "sw", "is"])[LANGUAGES]
QUERIES = rows_with_languages(1030, 96, seed=2)[0]  # more than one batch
IN_GERMAN = np.flatnonzero(np.isin(LABELS, ["de", "sw"]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the files of a user."""
    monkeypatch.chdir(tmp_path)
    np.save("vectors.npy", VECTORS)
    np.save("queries.npy", QUERIES)
    Path("langs.txt").write_text("\n".join(LABELS) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An index with graphs, and what a real process said when it built and searched."""
    folder = tmp_path_factory.mktemp("built")
    np.save(folder / "vectors.npy", VECTORS.astype(np.float16))
    np.save(folder / "queries.npy", QUERIES)
    (folder / "langs.txt").write_text("\r\n".join(LABELS))
    options = "--langs langs.txt --out index/ --memory 2GiB --recall 0.95 --exact-rows 300 --threads 1"
    build = command(folder, "-m", "indexing", "build", "vectors.npy", *options.split())
    assert build.returncode == 0, build.stderr
    return folder, build


def command(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_command_builds_an_index_and_tells_what_it_does(built):
    folder, build = built
    index = open_array_index(folder / "index").index
    assert {graph.kind.name for graph in (index.pool, *index.graphs.values())} == {"hnsw"}
    lines = build.stderr.splitlines()
    assert len(lines) == 6
    first = r"\[1/3\] 'de': hnsw for \d+ vectors: a graph .*; about .* s, .* s for all that is left"
    assert re.fullmatch(first, lines[0])
    last = r"\[3/3\] all rows: built in \d+\.\d s, recall [01]\.\d+ of the true 10 over \d+ queries"
    assert re.fullmatch(last, lines[5])


def test_the_table_says_rows_strategies_and_what_was_measured(built):
    folder, build = built
    index = open_array_index(folder / "index").index
    table = {
        line.split("  ")[0]: line.split("  ", 1)[1].split() for line in build.stdout.splitlines() if line
    }
    pool, own = index.calibrations["*"], index.calibrations["de"]
    rows, by_group = {label: f"{(label == LABELS).sum():,}" for label in LABELS}, pool.recall_by_group
    assert table["'de'"] == [rows["de"], "graph", f"{own.recall:.3f}", f"{by_group['de']:.3f}"]
    assert table["'sw'"] == [rows["sw"], "exact", "1.000", f"{by_group['sw']:.3f}"]
    assert table["all rows"] == ["1,500", "pool", f"{pool.recall:.3f}"]
    files = [path for path in (folder / "index").rglob("*") if path.is_file()]
    assert table["folder"] == [f"{sum(path.stat().st_size for path in files):,}", "bytes"]
    graphs = [path for path in files if path.suffix in (".faiss", ".npy") and path.parent.name[0] in "ps"]
    assert table["all graphs"] == [f"{sum(path.stat().st_size for path in graphs):,}", "bytes"]


@pytest.mark.parametrize("labels", [(), ("--lang", "de", "sw")])
def test_search_writes_the_rows_of_the_caller(built, labels, monkeypatch):
    monkeypatch.chdir(built[0])
    assert main(["search", "index", "queries.npy", "--k", "10", *labels, "--out", "found.npz"]) == 0
    with np.load("found.npz") as found:
        scores, rows = found["scores"], found["rows"]
    assert rows.shape == scores.shape == (1030, 10)
    allowed = IN_GERMAN if labels else np.arange(1500)
    assert np.isin(rows, allowed).all()
    half = VECTORS.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(scores, np.take_along_axis(QUERIES @ half.T, rows, 1), atol=1e-6)
    some = slice(1000, 1030)
    assert recall_at_k(rows[some], brute_force(QUERIES[some], half, 10, allowed)[1]) >= 0.95


@pytest.mark.usefixtures("folder")
def test_search_writes_a_table_of_text():
    np.save("vectors.npy", np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    np.save("queries.npy", np.array([[4, 3], [0, -2]], np.float32))
    Path("langs.txt").write_text("sw\nde\nde\n", encoding="utf-8")
    assert main(["build", "vectors.npy", "--langs", "langs.txt", "--out", "index"]) == 0
    search = ["search", "index", "queries.npy", "--normalize", "--out", "found.tsv"]
    assert main([*search, "--k", "2"]) == 0
    assert Path("found.tsv").read_text() == (
        "query\trank\trow\tscore\n0\t1\t2\t0.960000\n0\t2\t0\t0.800000\n1\t1\t0\t0.000000\n1\t2\t2\t-0.800000\n"
    )
    assert main([*search, "--k", "5", "--lang", "sw"]) == 0
    assert Path("found.tsv").read_text() == "query\trank\trow\tscore\n0\t1\t0\t0.800000\n1\t1\t0\t0.000000\n"


def test_info_says_what_is_inside_and_why(built, capsys):
    folder, build = built
    assert main(["info", str(folder / "index")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1,500 vectors of dimension 96\nrecall: 0.95\nk: 10\nmemory_bytes: 2147483648\n")
    assert build.stdout in said
    kind = open_array_index(folder / "index").index.graphs["de"].kind
    assert f"'de': {kind}, recall " in said
    assert "\n  hnsw for 1,500 vectors: a graph over 8-bit values" in said


@pytest.mark.usefixtures("folder")
def test_verify_finds_a_flipped_bit(capsys):
    assert main(["build", "vectors.npy", "--out", "index"]) == 0
    assert main(["verify", "index"]) == 0
    assert "1,500 vectors, every file is the one that was written" in capsys.readouterr().out
    (exact,) = Path("index/exact").glob("*.faiss")
    content = bytearray(exact.read_bytes())
    content[5000] ^= 4
    exact.write_bytes(content)
    assert main(["verify", "index"]) == 1
    assert re.fullmatch(r"error: .*\.faiss: damaged; its sha256 is not .*\n", capsys.readouterr().err)


@pytest.mark.usefixtures("folder")
def test_a_recall_out_of_reach_is_said(capsys):
    build = "build vectors.npy --langs langs.txt --out index --exact-rows 300 --recall 0.94 --memory"
    assert main([*build.split(), "1"]) == 1
    least = re.search(r"take at least (\d+) bytes", capsys.readouterr().err)[1]
    assert main([*build.split(), least]) == 0
    said = capsys.readouterr()
    warned = re.findall(r"warning: (.*): recall 0\.94 is not reached for certain; recall 0\.\d+ of", said.err)
    calibrations = open_array_index("index").index.calibrations
    assert sorted(warned) == sorted(
        "all rows" if label == "*" else repr(label)
        for label, calibration in calibrations.items()
        if not calibration.reached
    )
    assert warned
    assert said.out.count("(too low)") == len(warned)


def test_the_estimate_is_that_of_the_graphs_before(capsys, monkeypatch):
    clock = iter([100.0, 104.0, 200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress, done = BuildProgress(384), build_calibrated(VECTORS[:5], Hnsw(m=4))[1]
    steps = [("de", 1000, 1, 11_000), ("*", 10_000, 2, 10_000)]
    for label, rows, number, left in steps:
        step = (label, rows, Hnsw(), "because", number, 2, left)
        progress(GraphStep(*step))
        if number == 1:
            progress(GraphStep(*step, done))
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] 'de': because; about 0.1 s, 1.6 s for all that is left",
        "[1/2] 'de': built in 4.0 s, recall not measured",
        "[2/2] all rows: because; about 40.0 s, 40.0 s for all that is left",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build none.npy --out x", "none.npy: cannot be read: No such file or directory"),
        ("build langs.txt --out x", "langs.txt: not a .npy file that can be memory-mapped: .*"),
        ("build empty.npy --out x", "empty.npy: not a .npy file that can be memory-mapped: .*"),
        ("build zip.npz --out x", "zip.npz: not a .npy file that can be memory-mapped: .*"),
        ("build objects.npy --out x", "objects.npy: not a .npy file that can be memory-mapped: .*"),
        ("build line.npy --out x", r"line.npy: has shape \(5,\); expected \(n, dim\), at least one row"),
        ("build whole.npy --out x", "whole.npy: has dtype int64; expected float16 or float32"),
        ("build long.npy --out x", r"vectors\[7\] has length 3; rows must .*normalize scales them"),
        ("build nan.npy --normalize --out x", r"vectors\[9\] holds NaN or infinity \(1 of 1500 rows do\)"),
        ("build vectors.npy --langs none.txt --out x", "none.txt: cannot be read: No such file or directory"),
        ("build vectors.npy --langs few.txt --out x", "few.txt has 3 lines; vectors.npy has 1500 rows"),
        ("build vectors.npy --langs gap.txt --out x", "gap.txt: line 2 has no label"),
        ("build vectors.npy --langs latin.txt --out x", "latin.txt: byte 2 is not UTF-8"),
        ("build vectors.npy --langs stars.txt --out x", r"1500 rows have the label '\*', .*"),
        (
            "build vectors.npy --out .",
            r"\. exists; choose another folder, or overwrite it \(overwrite, --overwrite\)",
        ),
        ("build vectors.npy --overwrite --out .", r"\. holds no index .* and is not overwritten"),
        (
            "build vectors.npy --out file/x",
            ".*/file: is no folder that can be written, but file/x is to lie in it",
        ),
        ("build vectors.npy --memory lots --out x", "memory is 'lots'; expected bytes, KB, .*"),
        ("build vectors.npy --memory 9KB --exact-rows 9 --out x", "memory_bytes is 9000; .* at least .*"),
        ("build vectors.npy --recall 2 --out x", r"recall is 2\.0; expected more than 0, at most 1"),
        ("build vectors.npy --k 0 --out x", "k is 0; expected at least 1"),
        ("build vectors.npy --exact-rows -1 --out x", "exact-rows is -1; expected at least 0"),
        ("build vectors.npy --threads 0 --out x", "threads is 0; expected at least 1"),
        ("search none queries.npy --out x.npz", "none/shards.json: cannot be read: No such .*"),
        ("search other queries.npy --out x.npz", "other/shards.json: is not of an index of arrays"),
        ("search small queries.npy --out x.csv", r"x.csv ends in none of \.npz, \.tsv"),
        ("search small queries.npy --k 0 --out x.npz", "k is 0; expected at least 1"),
        ("search small queries.npy --lang fr --out x.npz", "no row has the label 'fr'; there are ''"),
        ("search small narrow.npy --out x.npz", "queries have dimension 2; expected 96"),
        ("search small long.npy --out x.npz", r"queries\[7\] has length 3; .*normalize scales them"),
        ("search small queries.npy --out none/x.npz", "none/x.npz: there is no folder none"),
        ("info none", "none/shards.json: cannot be read: No such file or directory"),
        ("verify file", "file/shards.json: cannot be read: Not a directory"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(bad_files, arguments, message, capsys):
    before = sorted(bad_files.rglob("*"))
    assert main(arguments.split()) == 1
    said = capsys.readouterr()
    assert re.fullmatch(f"error: {message}\n", said.err)
    assert said.out == ""
    assert sorted(bad_files.rglob("*")) == before


@pytest.fixture(scope="module")
def bad_files_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    long, nan = VECTORS.copy(), VECTORS.copy()
    long[7] *= 3
    nan[9, 4] = np.nan
    arrays = {"vectors": VECTORS, "queries": QUERIES, "long": long, "nan": nan, "line": VECTORS[0, :5]}
    arrays |= {"whole": np.ones((3, 2), np.int64), "narrow": np.eye(2, dtype=np.float32)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    np.savez(folder / "zip.npz", a=VECTORS)
    texts = {
        "langs": "\n".join(LABELS),
        "few": "a\nb\nc\n",
        "gap": "a\n\nb",
        "stars": "*\n" * 1500,
        "file": "",
    }
    for name, text in texts.items():
        (folder / (name if name == "file" else f"{name}.txt")).write_text(text)
    (folder / "latin.txt").write_bytes(b"a\n\xe9\n")
    (folder / "empty.npy").touch()
    save_shards(ShardedIndex.build(VECTORS[:9], [""] * 9), folder / "other")
    assert main(["build", str(folder / "vectors.npy"), "--out", str(folder / "small")]) == 0
    return folder


@pytest.fixture
def bad_files(bad_files_once, monkeypatch, capsys):
    capsys.readouterr()
    monkeypatch.chdir(bad_files_once)
    return bad_files_once


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GiB", 2 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5 kib", 1536),
        ("123", 123),
        ("7b", 7),
        ("3TB", 3 * 10**12),
    ],
)
def test_memory_is_read_in_both_kinds_of_units(text, count):
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "2G", "2 gigabytes", "-5", "1e9", "2GiB!", "½KB"])
def test_other_amounts_of_memory_are_refused(text):
    with pytest.raises(ValueError, match=re.escape(f"memory is {text!r}; expected bytes")):
        byte_count(text)


KILLED = """
import os, signal, sys
from pathlib import Path
from indexing.command import run_process

rename, calls = Path.rename, 0
how, moment = getattr(signal, sys.argv[1]), int(sys.argv[2])
del sys.argv[1:3]

def killed(path, target):
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), how)
    return rename(path, target)

Path.rename = killed
sys.exit(run_process())
"""


@pytest.mark.parametrize(
    ("how", "moment", "code"),
    [
        ("SIGKILL", "1", -signal.SIGKILL),
        pytest.param("SIGTERM", "1", 128 + signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("SIGINT", "1", 128 + signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_killed_while_building_it_leaves_no_folder(folder, how, moment, code):
    before = set(folder.iterdir())
    killed = command(folder, "-c", KILLED, how, moment, *["build", "vectors.npy", "--out", "index"])
    assert killed.returncode == code, killed.stderr
    assert not (folder / "index").exists()
    if how != "SIGKILL":
        assert set(folder.iterdir()) == before
        assert killed.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["1", "2"])
def test_killed_while_replacing_it_leaves_the_old_index(folder, moment):
    assert main(["build", "vectors.npy", "--langs", "langs.txt", "--out", "index"]) == 0
    overwrite = ["build", "vectors.npy", "--overwrite", "--out", "index"]
    killed = command(folder, "-c", KILLED, "SIGKILL", moment, *overwrite)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(open_array_index(folder / "index").index.groups) == set(LABELS)
