"""What a fresh install costs: seconds, megabytes, and seconds to the first vector of the bundled model.

    python benchmarks/install.py

Makes a virtual environment in a temporary folder, installs this checkout into it (no extras), and
starts a fresh interpreter several times that imports the package and encodes one text.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_VECTOR = "from embedsvc import load_encoder; load_encoder().encode(['Guten Morgen'])"


def megabytes(folder: Path) -> float:
    """Size of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def timed_install(venv: Path, *requirements: str | Path) -> tuple[float, float]:
    """Install into a new virtual environment, without pip's cache; return seconds and megabytes."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    before = megabytes(venv)
    begin = time.perf_counter()
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*pip, *map(str, requirements)], check=True)
    return time.perf_counter() - begin, megabytes(venv) - before


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as temporary:
        venv = Path(temporary) / "venv"
        install_s, size = timed_install(venv, ROOT)
        print(f"pip install .: {install_s:.1f} s, {size:.0f} MB")
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            subprocess.run([venv / "bin" / "python", "-c", FIRST_VECTOR], check=True, cwd=temporary)
            seconds.append(time.perf_counter() - begin)
        print(f"process start to first vector: {seconds[0]:.2f} s the first time, ", end="")
        print(f"median {statistics.median(seconds[1:]):.2f} s after")


if __name__ == "__main__":
    main()
