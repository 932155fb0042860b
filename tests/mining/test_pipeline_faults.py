"""What is killed goes on; a full disk is said; the bytes are those of a run that nothing befell."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAIN = "from embedsvc.cli import main; main()"
SYLLABLES = ["ka", "lo", "mi", "re", "su", "ta", "ne", "vo", "shi", "ran", "del", "por"]


def write_side(path: Path, lines: int, seed: int) -> None:
    """Write lines of invented words; every tenth is the same in all files."""
    own, shared = random.Random(seed), random.Random(0)
    words = ["".join(shared.choices(SYLLABLES, k=shared.randint(1, 3))) for _ in range(4000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            chosen = shared if number % 10 == 0 else own
            file.write(f"{number} " + " ".join(chosen.choices(words, k=12)) + "\n")


def start(folder: Path, out: str, *options: str, most_bytes: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "mine", "a.txt", "b.txt", "--out", out, "--threads", "1", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def finished(process: subprocess.Popen[str]) -> str:
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def results(folder: Path, out: str) -> list[bytes]:
    manifest = (folder / f"{out}.manifest.json").read_bytes().replace(out.encode(), b"OUT")
    return [(folder / out).read_bytes(), manifest]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    write_side(folder / "a.txt", 12_000, 1)
    write_side(folder / "b.txt", 9_000, 2)
    return folder


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_gives_the_same_bytes(sides: Path) -> None:
    finished(start(sides, "warm.tsv"))
    begin = time.monotonic()
    finished(start(sides, "whole.tsv"))
    seconds = time.monotonic() - begin
    chance, killed = random.Random(5), 0
    for number in range(5):
        out, job = f"again-{number}.tsv", f"job-{number}"
        process = start(sides, out, "--work", job)
        time.sleep(chance.uniform(0.05, 0.7) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        finished(start(sides, out, "--work", job))
        assert results(sides, out) == results(sides, "whole.tsv")
    assert killed >= 2, "the runs were over before they could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [100_000, 1_000_000, 3_000_000])
def test_a_full_disk_is_said_and_the_next_run_goes_on(sides: Path, most_bytes: int) -> None:
    out, job = f"full-{most_bytes}.tsv", f"job-{most_bytes}"
    process = start(sides, out, "--work", job, most_bytes=most_bytes)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "File too large" in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (sides / out).exists()
    finished(start(sides, out, "--work", job))
    finished(start(sides, "sound.tsv"))
    assert results(sides, out) == results(sides, "sound.tsv")
