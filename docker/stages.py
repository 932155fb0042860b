"""The Dockerfile as stages and steps, and what of the repository a build may copy."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from docker.utils import exclude_paths
from dockerfile_parse import DockerfileParser

BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Step:
    """One instruction: its keyword, its text with continuation lines joined, its line (from 1)."""

    keyword: str
    value: str
    line: int


@dataclass(frozen=True)
class Stage:
    """What lies between two FROMs; `base` is an earlier stage or an image."""

    name: str
    base: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Config:
    """What an image remembers beside its files."""

    environment: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"

    def after(self, step: Step) -> Config:
        """Return the configuration after a step that changes no file."""
        known = {**self.arguments, **self.environment}
        match step.keyword:
            case "ENV":
                return replace(self, environment={**self.environment, **assignments(step.value, known)})
            case "ARG":
                return replace(self, arguments={**self.arguments, **assignments(step.value, known)})
            case "WORKDIR":
                return replace(self, folder=step.value)
            case "USER":
                return replace(self, user=step.value)
            case "ENTRYPOINT":
                return replace(self, entrypoint=tuple(json.loads(step.value)))
            case "CMD":
                return replace(self, command=tuple(json.loads(step.value)))
            case "HEALTHCHECK":
                return replace(self, health=tuple(json.loads(step.value.split("CMD", 1)[1])))
            case "STOPSIGNAL":
                return replace(self, stop_signal=step.value)
            case "LABEL" | "EXPOSE" | "VOLUME":
                return self
        raise ValueError(f"Dockerfile line {step.line}: the replay does not know {step.keyword}")


def read_stages(dockerfile: Path) -> dict[str, Stage]:
    """Return the stages by name, in the order of the file; the ARGs before the first FROM are filled in."""
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    name = ""
    for entry in parser.structure:
        step = Step(entry["instruction"], entry["value"], entry["startline"] + 1)
        if step.keyword == "COMMENT":
            continue
        if step.keyword == "FROM":
            base, _, name = re.split(r"\s+", step.value)
            stages[name] = Stage(name, filled(base, arguments), ())
        elif not stages:
            arguments.update(assignments(step.value, arguments))
        else:
            stages[name] = Stage(name, stages[name].base, (*stages[name].steps, step))
    return stages


def build_order(stages: Mapping[str, Stage], target: str) -> list[Stage]:
    """Return the stages that a target needs, each after those it needs itself."""
    stage = stages[target]
    needed = [stage.base, *(source for step in stage.steps if (source := copy_of(step)[0]))]
    order: list[Stage] = []
    for name in needed:
        if name in stages:
            order += [earlier for earlier in build_order(stages, name) if earlier not in order]
    return [*order, stage]


def copy_of(step: Step) -> tuple[str, list[str], str]:
    """Return a COPY's stage ("" is the build context), sources and destination; of another step, nothing."""
    if step.keyword != "COPY":
        return "", [], ""
    words = shlex.split(step.value)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    return stage, words[:-1], words[-1]


def assignments(value: str, known: Mapping[str, str]) -> dict[str, str]:
    """``A=1 B="two ${C}"`` → {"A": "1", "B": "two …"} with the known variables filled in."""
    pairs = (word.split("=", 1) for word in shlex.split(value))
    return {name: filled(text, known) for name, text in pairs}


def filled(text: str, known: Mapping[str, str]) -> str:
    """Replace each ``${NAME}``; KeyError for a name that was never set."""
    return re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], text)


def context_paths(repository: Path) -> frozenset[str]:
    """Return what .dockerignore lets into the build, as Docker itself decides it."""
    lines = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return frozenset(exclude_paths(str(repository), patterns))
