"""The commands of docs/check.md, as they stand there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import DOCS, alike, blocks, commands
from tests.support.running import CHECKOUT
from tests.support.tools import tool


def test_every_command_of_the_page(tmp_path: Path) -> None:
    (bin_ := tmp_path / "bin").mkdir()
    (home := tmp_path / "home").mkdir()
    (home / "examples").symlink_to(CHECKOUT / "examples")
    (home / "kustomization.yaml").write_text("resources: [pool.yaml]\n")
    (bin_ / "kubectl").symlink_to(tool("kubectl"))
    (bin_ / "velda-apiserver").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m app "$@"\n')
    (bin_ / "velda-apiserver").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    for block in blocks((DOCS / "check.md").read_text(encoding="utf-8")):
        script = "\n".join(commands(block))
        done = subprocess.run(
            ["bash", "-eu", "-c", script],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        # The pool that the page spoils is what the kustomization makes.
        assert done.returncode == (1 if "kustomize" in script else 0), f"{script}\n{done.stdout}"
        assert not alike(block.output) - alike(done.stdout), done.stdout
