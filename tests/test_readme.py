"""The README is true: its Python runs, its commands and options exist, its file links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest

from embedsvc.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", README, flags=re.S)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("embedsvc")
    }
)


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line)[1] for line in COMMANDS}
    assert shown >= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument and option is accepted; the files it names are made empty, nothing is run."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    (tmp_path / "DIR").mkdir()
    for before, word in pairwise(words):
        if before != "--out" and re.fullmatch(r"[\w/.]+\.(txt|jsonl|toml|tsv|npy|json|gz|zst)", word):
            path = tmp_path / word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{name} is no command"
        command = found
    command.make_context(command.name, words)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    first, second = answer.stdout.splitlines()
    assert first == "The library opens at nine."
    assert second.endswith(("It is raining.", "The cat sleeps."))


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_explains_every_metric():
    from embedsvc.server.metrics import Metrics

    table = README[README.index("| metric (`embedsvc_…`)") :].split("\n\n", 1)[0]
    explained = {f"embedsvc_{name}" for name in re.findall(r"`([a-z_]+)`", table) if "_" in name}
    exposed = set(re.findall(r"^# TYPE (\w+) ", Metrics().exposition().decode(), re.MULTILINE))
    assert explained - {"embedsvc_"} == {name for name in exposed if not name.endswith("_created")}
