"""A real `embedsvc serve` in a process of its own."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = "from embedsvc.cli import main; main()"


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EMBEDSVC_")}


class Server:
    """A server process; `url` is known once it has greeted. ``limits`` are of `resource`, hard and soft."""

    def __init__(
        self,
        *options: str,
        code: str = MAIN,
        variables: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        def limit() -> None:
            for kind, value in (limits or {}).items():
                resource.setrlimit(kind, (value, value))

        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0", *options],
            cwd=ROOT,
            env=clean_environment() | dict(variables or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit if limits else None,
        )
        self.greeting: list[str] = []
        for line in self.process.stderr or ():
            self.greeting.append(line)
            if line.startswith("Page: ") or (line.startswith("{") and " on http" in line):
                break
        shown = re.search(r" on (https?://[\w.:]+)", "".join(self.greeting))
        self.url = shown[1] if shown else ""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stop(self) -> tuple[int, str, str]:
        """End it as an init system would; return exit status, standard output and standard error."""
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors
