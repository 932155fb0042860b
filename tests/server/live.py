"""A real server process on a real port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def live_server(*options: str) -> Iterator[str]:
    """Start `embedsvc serve`, yield its address, end it as an init system would."""
    command = [
        sys.executable,
        "-c",
        "from embedsvc.cli import main; main()",
        "serve",
        "--port",
        "0",
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDSVC_")}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        greeting = next(line for line in process.stderr if line.startswith("Page: "))
        yield greeting.split()[1].rstrip("/")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
