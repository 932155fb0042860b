"""Build and try a target of the Dockerfile without a container engine.

    python docker/replay.py cpu                          # in a clean virtual environment
    sudo python docker/replay.py cpu --debootstrap       # in a clean Debian folder, read-only while it serves
    python docker/replay.py cuda --check                 # only show the steps and look for what they copy

Runs the steps of the stages that the target needs, starts its CMD, waits for its HEALTHCHECK, encodes
a text and stores one over HTTP, sends the STOPSIGNAL and expects exit status 0. Needs the [dev] extra.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import click
from roots import Command, DebianRoot, Root, VenvRoot, machine_variables
from stages import Config, Stage, Step, build_order, context_paths, copy_of, read_stages

DOCKERFILE = Path(__file__).with_name("Dockerfile")
REPOSITORY = DOCKERFILE.parents[1]
READY_WITHIN_S = 60
STOPPED_WITHIN_S = 40
TEXT = "Guten Morgen"


class Build:
    """Replays stages one after another: each is made at `root.folder` and then put aside under its name,
    so that a path means the same in every stage, as in a container."""

    def __init__(self, root: Root, work: Path) -> None:
        self._root = root
        self._work = work
        self._configs: dict[str, Config] = {}
        for path in context_paths(REPOSITORY):
            if (REPOSITORY / path).is_file():
                copy(REPOSITORY / path, work / "context" / path)

    def make(self, stages: list[Stage]) -> Config:
        """Replay the stages in this order; the files of the last one stay at `root.folder`."""
        config = Config()
        for stage in stages:
            with timed(f"FROM {stage.base} AS {stage.name}"):
                config = self._begin(stage.base)
            for step in stage.steps:
                config = self._follow(step, config)
            self._configs[stage.name] = config
            if stage is not stages[-1]:
                self._root.folder.rename(self._work / stage.name)
        return config

    def _begin(self, base: str) -> Config:
        if base in self._configs:
            subprocess.run(["cp", "-a", self._work / base, self._root.folder], check=True)
            return self._configs[base]
        self._root.folder.mkdir()
        self._root.make_base(base)
        return Config()

    def _follow(self, step: Step, config: Config) -> Config:
        if step.keyword == "RUN":
            self._run(step, config)
            return config
        if step.keyword == "COPY":
            with timed(f"COPY {step.value}"):
                self._copy(step, config)
            return config
        config = config.after(step)
        if step.keyword in ("WORKDIR", "VOLUME"):
            self._path(step.value, config).mkdir(parents=True, exist_ok=True)
        return config

    def _run(self, step: Step, config: Config) -> None:
        if lacking := self._root.lacks(step.value):
            print(f"    left out  RUN {step.value}: {lacking}")
            return
        variables = {**machine_variables(), **config.arguments, **config.environment}
        command = Command(("/bin/sh", "-c", step.value), variables, config.folder, config.user)
        with timed(f"RUN {step.value}"):
            if status := self._root.start(command).wait():
                raise click.ClickException(f"line {step.line} of the Dockerfile ended with {status}")

    def _copy(self, step: Step, config: Config) -> None:
        stage, sources, destination = copy_of(step)
        for source in sources:
            origin = self._work / (stage or "context") / source.lstrip("/")
            target = self._path(destination, config)
            into = destination.endswith("/") and not origin.is_dir()
            copy(origin, target / origin.name if into else target)

    def _path(self, inside: str, config: Config) -> Path:
        return self._root.folder / (PurePosixPath(config.folder) / inside).relative_to("/")


def copy(origin: Path, target: Path) -> None:
    """Copy a file or a folder's content, links kept; folders on the way are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy(origin, target)


def try_image(root: Root, config: Config) -> None:
    """Start the image's command, wait until it is healthy, use it, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**config.environment, "EMBEDSVC_PORT": str(port)}
    words = (*config.entrypoint, *config.command)
    service = root.start_service(Command(words, environment, config.folder, config.user))
    try:
        with timed(f"HEALTHCHECK {' '.join(config.health)}"):
            health = Command(config.health, environment, config.folder, config.user)
            wait_until_healthy(root, health, service)
        with timed("POST /v1/embeddings, PUT /v1/collections/replay/documents"):
            use(port)
        with timed(f"STOPSIGNAL {config.stop_signal}"):
            service.send_signal(signal.Signals[config.stop_signal])
            status = service.wait(STOPPED_WITHIN_S)
    finally:
        service.kill()
    if status != 0:
        raise click.ClickException(f"{' '.join(words)} ended with {status} after {config.stop_signal}")


def wait_until_healthy(root: Root, health: Command, service: subprocess.Popen[bytes]) -> None:
    """Repeat the health check until it passes; an error when the service ends or READY_WITHIN_S pass."""
    end = time.monotonic() + READY_WITHIN_S
    while root.start_service(health).wait() != 0:
        if service.poll() is not None or time.monotonic() > end:
            raise click.ClickException(f"not healthy; exit status of the service: {service.poll()}")
        time.sleep(0.2)


def use(port: int) -> None:
    """Encode a text with the bundled model (384 numbers of length 1), then store one in the volume."""
    vector = ask(port, "POST", "/v1/embeddings", {"input": TEXT})["data"][0]["embedding"]
    if len(vector) != 384 or not math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-4):
        raise click.ClickException(f"{len(vector)} numbers of length {math.hypot(*vector):.4f}")
    ask(port, "PUT", "/v1/collections/replay/documents", {"documents": [{"id": "a", "text": TEXT}]})


def ask(port: int, method: str, path: str, body: dict[str, Any]) -> Any:
    """Return the JSON answer to a request; HTTPError for an error status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def check_steps(stages: list[Stage]) -> None:
    """Show every step; raise ClickException for one that copies what the build context does not have."""
    context = context_paths(REPOSITORY)
    for stage in stages:
        print(f"FROM {stage.base} AS {stage.name}")
        for step in stage.steps:
            print(f"    {step.keyword} {step.value}")
            origin, sources, _ = copy_of(step)
            missing = [source for source in sources if not origin and source not in context]
            if missing:
                raise click.ClickException(f"line {step.line}: not in the build context: {missing}")


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Print the step with its seconds once it is done."""
    begin = time.perf_counter()
    yield
    print(f"{time.perf_counter() - begin:10.1f} s  {step}", flush=True)


def megabytes(folder: Path) -> float:
    """Size of the files under a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


@click.command()
@click.argument("target")
@click.option(
    "--debootstrap", is_flag=True, help="A Debian folder instead of a virtual environment; needs root."
)
@click.option("--check", is_flag=True, help="Show the steps and look for what they copy; run nothing.")
def main(*, target: str, debootstrap: bool, check: bool) -> None:
    """Replay TARGET of the Dockerfile and try what comes out."""
    stages = read_stages(DOCKERFILE)
    if target not in stages:
        raise click.UsageError(f"no target {target!r}; there are {', '.join(stages)}")
    order = build_order(stages, target)
    check_steps(order)
    if check:
        return
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        root: Root = DebianRoot(work / "root") if debootstrap else VenvRoot(work / "root")
        with timed(f"{target} built"):
            config = Build(root, work).make(order)
        print(f"{megabytes(root.folder):10.0f} MB /, of it /opt {megabytes(root.folder / 'opt'):.0f} MB")
        try_image(root, config)


if __name__ == "__main__":
    main()
