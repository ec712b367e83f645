"""Where a reader of the documentation types its commands: the checkout, a kubeconfig, the tools on the PATH."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import Fleet
from tests.support.running import CHECKOUT
from tests.support.tools import tool

NEEDED = ("chart", "crd", "examples")
"""What of the checkout commands read; they may write beside it."""
LONGEST = 180.0
"""Seconds that the commands of a block may take."""


class Place:
    """A directory of one's own that looks like the checkout, on the fleet stage."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.directory = fleet, directory
        (bin_ := directory / "bin").mkdir()
        (home := directory / "home").mkdir()
        for name in NEEDED:
            (home / name).symlink_to(CHECKOUT / name)
        python, services = shlex.quote(sys.executable), fleet.directory / "services"
        kubectl, helm = (shlex.quote(str(tool(name))) for name in ("kubectl", "helm"))
        _script(
            bin_ / "kubectl",
            f'for word in "$@"; do [ "$word" = port-forward ] && '
            f'exec {python} -m tests.docs.forward {services} "$@"; done\nexec {kubectl} "$@"',
        )
        _script(bin_ / "helm", f'exec {helm} "$@"')
        _script(bin_ / "velda-apiserver", f'exec {python} -m app "$@"')
        _script(bin_ / "kubectl-velda", f'exec {python} -c "from app.plugin import main; main()" "$@"')
        self._environment = os.environ | {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "KUBECONFIG": str(fleet.kubeconfig),
            "HELM_CACHE_HOME": str(directory / "helm"),
            "HOME": str(home),
            "COLUMNS": "200",
        }

    def run(self, script: str) -> str:
        """As a shell runs it that stops at the first error; what it printed. AssertionError with all of that."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory / "home",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}"
        return done.stdout


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
