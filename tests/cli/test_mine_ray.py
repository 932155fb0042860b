"""`embedsvc mine --engine ray` as a user runs it, on a cluster and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.indexing.ray_cluster import ROOT, Cluster, processes_of_ray
from tests.indexing.ray_fixtures import MARKS, cluster
from tests.mining.test_mine import ALIGNED

__all__ = ["cluster"]
pytestmark = MARKS


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    for name, language in (("de.txt", "deu"), ("en.txt", "eng")):
        (tmp_path / name).write_text("\n".join(ALIGNED[language]) + "\n", encoding="utf-8")
    return [str(tmp_path / "de.txt"), str(tmp_path / "en.txt")]


def mine(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from embedsvc.cli import main; main()", "mine", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.with_name(f"{out.name}.manifest.json").read_text())
    for name in ("engine", "ray_address", "threads"):
        del found["options"][name]
    del found["out"]["name"]
    return found


def test_a_cluster_gives_the_bytes_of_this_process(
    inputs: list[str], tmp_path: Path, cluster: Cluster
) -> None:
    local, far = tmp_path / "local.tsv", tmp_path / "ray.tsv"
    assert mine(*inputs, "--out", local, "--threshold", "0.9").returncode == 0
    options = ("--engine", "ray", "--ray-address", cluster.address, "--threads", "1")
    found = mine(*inputs, "--out", far, "--threshold", "0.9", *options)
    assert (found.returncode, found.stderr.count("wrote ")) == (0, 1), found.stderr
    assert far.read_bytes() == local.read_bytes() != b""
    assert manifest(far) == manifest(local)


def test_without_a_cluster_one_is_started_and_ends(inputs: list[str], tmp_path: Path) -> None:
    before = processes_of_ray()
    out = tmp_path / "pairs.tsv"
    options = ("--engine", "ray", "--ray-address", "local")
    found = mine(*inputs, "--out", out, "--threshold", "0.9", *options)
    assert found.returncode == 0, found.stderr
    assert out.read_text().count("\n") > 5
    assert processes_of_ray() <= before


def test_no_cluster_there_is_one_line(inputs: list[str], tmp_path: Path) -> None:
    options = ("--engine", "ray", "--ray-address", "127.0.0.1:1")
    found = mine(*inputs, "--out", tmp_path / "pairs.tsv", "--threshold", "0.9", *options)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == (
        "embedsvc: ray address 127.0.0.1:1: cannot be reached: Connection refused"
    )
    assert "Traceback" not in found.stderr
