"""What comes from others is named exactly, and checked when it comes."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.running import CHECKOUT

LOCK = tomllib.loads((CHECKOUT / "uv.lock").read_text())
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()


def test_every_package_is_locked_by_hash() -> None:
    others = [package for package in LOCK["package"] if not {"virtual", "editable"} & package["source"].keys()]
    assert len(others) > 50
    for package in others:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        assert files
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_the_build_takes_what_is_locked_and_its_images_have_exact_versions() -> None:
    assert "uv sync --locked" in DOCKERFILE
    assert "uv export --locked" in DOCKERFILE
    for image in re.findall(r"^ARG (?:BASE|UV)=(.+)$", DOCKERFILE, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", image), image
    assert re.search(r"^USER 65532:65532$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_package_that_runs_has_a_locked_wheel_for_the_machine(machine: str, tmp_path: Path) -> None:
    """As the Dockerfile puts them in, which builds nothing; uv looks and does not fetch."""
    uv = os.environ.get("UV", "uv")
    command = [uv, "sync", "--locked", "--no-dev", "--no-install-project", "--no-build", "--dry-run"]
    platform = f"--python-platform={machine}-manylinux_2_28"
    elsewhere = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "venv")}
    done = subprocess.run(
        [*command, platform], cwd=CHECKOUT, env=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '--python-platform "${machine}-manylinux_2_28"' in DOCKERFILE
