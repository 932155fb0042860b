"""The Dockerfile: a linter's rules and ours. What the steps do is tested by replaying them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from stages import Stage, Step, assignments, build_order, context_paths, copy_of, filled, read_stages

from embedsvc.settings import Settings, check_variables

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
STAGES = read_stages(DOCKERFILE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TWO_STAGES = """
ARG BASE=python:3.11-slim
FROM ${BASE} AS one
COPY a.txt \\
     b.txt /opt/
FROM one AS two
COPY --from=one /opt /opt
# a remark
CMD ["serve"]
"""


def image_steps(target: str, keyword: str) -> list[str]:
    """Values of a keyword along the FROMs of a target, the base's first."""
    stage = STAGES[target]
    inherited = image_steps(stage.base, keyword) if stage.base in STAGES else []
    return [*inherited, *(step.value for step in stage.steps if step.keyword == keyword)]


def image_variables(target: str) -> dict[str, str]:
    variables = {"PATH": "/usr/bin"}
    for value in image_steps(target, "ENV"):
        variables.update(assignments(value, variables))
    return variables


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement.strip())[0] for requirement in requirements}


def test_stages_are_read_as_docker_reads_them(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TWO_STAGES, encoding="utf-8")
    copy, copy_from = Step("COPY", "a.txt      b.txt /opt/", 4), Step("COPY", "--from=one /opt /opt", 7)
    assert read_stages(tmp_path / "Dockerfile") == {
        "one": Stage("one", "python:3.11-slim", (copy,)),
        "two": Stage("two", "one", (copy_from, Step("CMD", '["serve"]', 9))),
    }
    assert copy_of(copy) == ("", ["a.txt", "b.txt"], "/opt/")
    assert copy_of(copy_from) == ("one", ["/opt"], "/opt")


def test_a_variable_that_was_never_set_is_an_error() -> None:
    assert filled("${A}/${B}", {"A": "1", "B": "2"}) == "1/2"
    with pytest.raises(KeyError, match="C"):
        filled("${C}", {"A": "1"})


def test_a_target_needs_no_stage_of_the_other() -> None:
    assert [stage.name for stage in build_order(STAGES, "cpu")] == [
        *("base", "runtime", "builder", "wheel", "cpu-venv", "cpu")
    ]
    assert "cpu-venv" not in [stage.name for stage in build_order(STAGES, "cuda")]


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [linter, "--no-color", "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_cpu_is_what_a_build_without_a_target_makes() -> None:
    assert list(STAGES)[-1] == "cpu"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_is_run_as_we_promise(target: str) -> None:
    assert image_steps(target, "USER")[-1] == "10001:10001"
    assert image_steps(target, "VOLUME") == ["/data"]
    assert image_steps(target, "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(image_steps(target, "ENTRYPOINT")[-1]) == ["embedsvc"]
    assert json.loads(image_steps(target, "CMD")[-1]) == ["serve"]
    assert json.loads(image_steps(target, "HEALTHCHECK")[-1].split("CMD")[1])[0] == "python"
    assert {"title", "description", "licenses"} <= {
        label.removeprefix("org.opencontainers.image.")
        for label in assignments(image_steps(target, "LABEL")[0], {})
    }


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_what_an_image_keeps_lies_in_the_volume(target: str) -> None:
    variables = image_variables(target)
    for name in ("EMBEDSVC_DATA_DIR", "HF_HOME", "XDG_CACHE_HOME"):
        assert variables[name].startswith("/data/"), name


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_variables_of_an_image_are_options_of_the_server(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: value for name, value in image_variables(target).items() if name.startswith("EMBEDSVC_")}
    check_variables(given)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.port) == ("0.0.0.0", int(image_steps(target, "EXPOSE")[0]))


def test_the_base_names_its_python_and_its_debian() -> None:
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-[a-z]+", STAGES["base"].base)


def test_everything_copied_is_in_the_build_context() -> None:
    context = context_paths(ROOT)
    copied = [
        source
        for stage in STAGES.values()
        for step in stage.steps
        for source in copy_of(step)[1]
        if not copy_of(step)[0]
    ]
    assert "embedsvc" in copied
    assert [source for source in copied if source not in context] == []


def test_the_build_context_is_no_more_than_the_packages() -> None:
    first = {path.split("/")[0] for path in context_paths(ROOT)}
    packages = {"embedsvc", "indexing", "training"}
    assert first == {".dockerignore", "pyproject.toml", "README.md", "LICENSE", "docker", *packages}
    assert not [path for path in context_paths(ROOT) if "__pycache__" in path]
    assert "embedsvc/models/default/model.safetensors" in context_paths(ROOT)


def test_the_cpu_image_takes_no_extra() -> None:
    runs = [
        step.value for stage in build_order(STAGES, "cpu") for step in stage.steps if step.keyword == "RUN"
    ]
    assert not [run for run in runs if "--extra" in run or "torch" in run]
    assert "torch" not in names(PROJECT["dependencies"])


def test_the_cuda_image_leaves_out_what_its_packages_replace() -> None:
    """Every package of [gpu] stands in for one of the dependencies: faiss-gpu for faiss-cpu."""
    lines = (ROOT / "docker/cuda-overrides.txt").read_text(encoding="utf-8").splitlines()
    left_out = names([line for line in lines if not line.startswith("#")])
    families = {name.split("-")[0] for name in names(PROJECT["optional-dependencies"]["gpu"])}
    assert left_out == {name for name in names(PROJECT["dependencies"]) if name.split("-")[0] in families}
