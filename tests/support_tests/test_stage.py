"""A stage goes up and down by one command, and leaves nothing however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import stage
from tests.support.running import CHECKOUT
from tests.support.tools import CONTROL_PLANE, tool

_DEADLINE = 30.0
_PARENT = """
import time
from tests.support.cluster import stage_process
with stage_process("plane") as description:
    print(description["directory"], flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary files and state apart from those of other stages; the same binaries."""
    (assets := tmp_path / "assets").mkdir()
    for batch in CONTROL_PLANE:
        for name in batch.packages:
            (assets / name).symlink_to(tool(name))
    (temporary := tmp_path / "tmp").mkdir()
    own = {"KUBEBUILDER_ASSETS": str(assets), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(temporary)}
    (tmp_path / "cache" / "velda-tools").mkdir(parents=True)
    return os.environ | own


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tests.support.stage", *arguments]
    return subprocess.run(line, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def test_up_status_and_down(environment: dict[str, str]) -> None:
    assert command(environment, "status", "plane").returncode == 3
    up = command(environment, "up", "plane")
    assert up.returncode == 0, up.stderr
    state = json.loads(command(environment, "status", "plane").stdout)
    assert state["kubeconfig"] in up.stdout
    assert "is up already" in command(environment, "up", "plane").stdout
    assert command(environment, "down", "plane").stdout == "The plane stage is gone\n"
    assert list(Path(environment["TMPDIR"]).iterdir()) == []
    assert processes(state["directory"]) == []
    assert command(environment, "status", "plane").returncode == 3
    assert command(environment, "down", "plane").stdout == "The plane stage is not up\n"


@pytest.fixture
def parent(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a stage as pytest does."""
    line = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(line, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_test_session_leaves_nothing(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    directory = parent.stdout.readline().strip()
    assert processes(directory) != []
    parent.send_signal(signal.SIGKILL)
    wait_until_gone(directory)
    deadline = time.monotonic() + _DEADLINE
    while Path(directory).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_supervisor_takes_the_stage_with_it_and_the_next_one_sweeps(
    parent: subprocess.Popen[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parent.stdout is not None
    directory = parent.stdout.readline().strip()
    monkeypatch.setattr(tempfile, "tempdir", environment["TMPDIR"])
    stage.sweep()
    assert Path(directory).exists()  # it lives
    (supervisor,) = children(parent.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_until_gone(directory)
    deadline = time.monotonic() + _DEADLINE
    while Path(directory).exists():  # the kernel gives its name back a moment after its processes are out of sight
        assert time.monotonic() < deadline
        stage.sweep()


def test_a_part_that_does_not_start_is_named_with_its_log(environment: dict[str, str]) -> None:
    etcd = Path(environment["KUBEBUILDER_ASSETS"]) / "etcd"
    etcd.unlink()
    etcd.write_text("#!/bin/sh\necho no space left\nexit 1\n")
    etcd.chmod(0o755)
    failed = command(environment, "up", "plane")
    assert failed.returncode == 1
    assert "error: etcd ended with 1; the end of its log:\nno space left" in failed.stderr
    assert "logs are kept in" in failed.stderr
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def processes(marker: str) -> list[str]:
    """Command lines of living processes that name the stage's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in line:
            found.append(line)
    return found


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(marker: str) -> None:
    """The kernel does not tell us of the end of processes that are not ours."""
    deadline = time.monotonic() + _DEADLINE
    while left := processes(marker):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
