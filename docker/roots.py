"""Two stand-ins for a container: a Debian folder entered with chroot, and a virtual environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# A build behind a company proxy needs these of its machine, as `docker build --build-arg` would give them.
_FROM_THIS_MACHINE = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "PIP_CERT")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Command:
    """What runs: the words, the variables, the folder and the user ("" is root)."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str = "/"
    user: str = ""


class Root(Protocol):
    """A file system of its own under `folder`, and a way to run commands in it."""

    @property
    def folder(self) -> Path:
        """Where the files of the stage in work lie."""

    def make_base(self, image: str) -> None:
        """Fill `folder` with what stands in for a base image."""

    def lacks(self, script: str) -> str:
        """Return why a RUN cannot be done here, or ""."""

    def start(self, command: Command) -> subprocess.Popen[bytes]:
        """Start a command while the image is built."""

    def start_service(self, command: Command) -> subprocess.Popen[bytes]:
        """Start a command as `compose.yaml` would: the root read-only, /data a volume, /tmp in memory."""


def machine_variables() -> dict[str, str]:
    """The proxy and certificate variables that are set here."""
    return {name: os.environ[name] for name in _FROM_THIS_MACHINE if name in os.environ}


@dataclass(frozen=True)
class VenvRoot:
    """No root rights needed: a virtual environment is the Python image, and absolute paths are moved.

    Users, Debian packages and the read-only root are not replayed.
    """

    folder: Path

    def make_base(self, image: str) -> None:  # noqa: ARG002
        """A virtual environment at /usr/local, where the Python image has its Python."""
        subprocess.run([sys.executable, "-m", "venv", self.folder / "usr/local"], check=True)

    def lacks(self, script: str) -> str:
        """Users and Debian packages need a root file system."""
        found = re.search(r"\b(useradd|groupadd|apt-get)\b", script)
        return f"{found[1]} needs --debootstrap" if found else ""

    def start(self, command: Command) -> subprocess.Popen[bytes]:
        """Run with /opt, /src, /data and /usr/local moved under the folder."""
        return subprocess.Popen(
            [self._moved(word) for word in command.words],
            env={name: self._moved(value) for name, value in command.environment.items()},
            cwd=self._moved(command.folder),
        )

    def start_service(self, command: Command) -> subprocess.Popen[bytes]:
        """As `start`: a virtual environment has no read-only root."""
        return self.start(command)

    def _moved(self, text: str) -> str:
        return re.sub(r"(?<![\w./-])(?=/(opt|src|data|usr/local)\b)", str(self.folder), text)


@dataclass(frozen=True)
class DebianRoot:
    """A minimal Debian of the base image's release, entered with chroot; needs root and debootstrap."""

    folder: Path

    def make_base(self, image: str) -> None:
        """Debian's own python3 stands in for the one that the Python image builds."""
        release = image.rsplit("-", 1)[1]
        packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, release, self.folder], check=True)
        (self.folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        # The Python image lets pip install into /usr/local; Debian's marker would refuse it.
        for marker in self.folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        shutil.copy("/etc/resolv.conf", self.folder / "etc/resolv.conf")
        shutil.copy(_CERTIFICATES, self.folder / _CERTIFICATES.relative_to("/"))

    def lacks(self, script: str) -> str:  # noqa: ARG002
        """Nothing."""
        return ""

    def start(self, command: Command) -> subprocess.Popen[bytes]:
        """Run in the folder, with /proc."""
        return self._enter('mount -t proc proc "$root/proc"', command)

    def start_service(self, command: Command) -> subprocess.Popen[bytes]:
        """Run with the mounts and without the rights that `compose.yaml` takes away."""
        volume = self.folder.parent / "volume"
        if not volume.exists():  # a new volume starts as a copy of the image's folder, owner included
            subprocess.run(["cp", "-a", self.folder / "data", volume], check=True)
        mounts = f"""
            mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" &&
            mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
            mount -t tmpfs tmpfs "$root/tmp" && mount --bind {volume} "$root/data"
        """
        return self._enter(mounts, command)

    def _enter(self, mounts: str, command: Command) -> subprocess.Popen[bytes]:
        """The mounts live in a namespace that ends with the command; each word replaces the one before it,
        so that the process returned is the command itself."""
        script = f"""
            root={self.folder}
            {mounts.strip()} || exit 125
            exec chroot --userspec="{command.user or "0:0"}" "$root" /usr/bin/env -C "{command.folder}" "$@"
        """
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *command.words]
        return subprocess.Popen([shutil.which(words[0]) or words[0], *words[1:]], env=command.environment)
