"""Building the image's steps and using what comes out, without a container engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def replay(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDSVC_")}
    return subprocess.run(
        [sys.executable, ROOT / "docker/replay.py", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_every_step_of_a_target_can_be_resolved(target: str) -> None:
    answer = replay(target, "--check")
    assert answer.returncode == 0, answer.stderr
    assert f"FROM runtime AS {target}" in answer.stdout
    assert ("--extra torch" in answer.stdout) == (target == "cuda")


def test_an_unknown_target_is_refused_by_name() -> None:
    answer = replay("gpu", "--check")
    assert answer.returncode == 2
    assert "no target 'gpu'" in answer.stderr
    assert "cuda" in answer.stderr


def assert_served(answer: subprocess.CompletedProcess[str]) -> None:
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert "POST /v1/embeddings" in answer.stdout
    assert "s  STOPSIGNAL SIGTERM" in answer.stdout


@pytest.mark.slow
def test_the_cpu_image_serves_from_a_clean_virtual_environment() -> None:
    answer = replay("cpu")
    assert_served(answer)
    assert "left out  RUN groupadd" in answer.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("debootstrap") is None, reason="needs root and debootstrap"
)
def test_the_cpu_image_serves_from_a_clean_debian() -> None:
    answer = replay("cpu", "--debootstrap")
    assert_served(answer)
    assert "left out" not in answer.stdout


@pytest.mark.slow
def test_the_packages_of_the_cuda_image_can_be_had_together() -> None:
    """Resolved, not installed: gigabytes, and no GPU to run them on."""
    answer = subprocess.run(
        [
            *(Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--no-annotate"),
            *("--extra", "torch", "--extra", "gpu", "--overrides", "docker/cuda-overrides.txt"),
            *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "pyproject.toml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = {line.split("==")[0] for line in answer.stdout.splitlines()}
    assert {"torch", "faiss-gpu", "onnxruntime-gpu"} <= found
    assert not {"faiss-cpu", "onnxruntime"} & found
