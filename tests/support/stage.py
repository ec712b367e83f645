"""``python -m tests.support.stage up|down|status STAGE``: a stage is one process; when that ends, all of it is gone.

Tests start the same process (``run``) with a pipe to it: however pytest ends, the pipe closes and the stage cleans up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.obs.progress import SOON, waiting
from tests.support import cgroups, images, node_tools, tools
from tests.support.isolation import namespaces
from tests.support.process import StageError, die_with_parent
from tests.support.running import CHECKOUT
from tests.support.tools import ToolError, cache_root

STAGES = ("fleet", "node", "plane")
KEEP_LOGS = "keep logs"
"""What a test session that failed writes into the pipe before it closes it."""
_DOWN_TIMEOUT = 60.0
_KEPT_LOGS = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.stage", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "run"])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--detached", action="store_true", help="run: live until SIGTERM, not until stdin ends")
    options = parser.parse_args()
    try:
        return {"up": up, "down": down, "status": status, "run": run}[options.command](options)
    except (StageError, ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """Run the stage in namespaces of its own until told to end; then nothing of it is left but, if wanted, its logs."""
    inputs = prepare(options.stage)
    sweep()
    directory = Path(tempfile.gettempdir()) / f"velda-{options.stage}-{uuid.uuid4().hex[:10]}"
    with _claimed(directory), socket.create_server(("127.0.0.1", 0)) as door:
        directory.mkdir(mode=0o700)
        keep_logs = True
        try:
            supervisor = _Supervisor(options.stage, directory, door, inputs)
            keep_logs = asyncio.run(supervisor.run(detached=options.detached))
        finally:
            if keep_logs:
                _save_logs(directory, options.stage)
            _remove(directory)
    return supervisor.exit_code


def sweep() -> None:
    """Remove what is left of stages that were killed so hard that nobody could clean up."""
    for stage in STAGES:
        for directory in Path(tempfile.gettempdir()).glob(f"velda-{stage}-*"):
            with contextlib.suppress(OSError), _claimed(directory):
                _remove(directory)


@contextlib.contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """The stage's name, which the kernel gives back however its owner ends; OSError where somebody has it."""
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind(f"\0{directory}")
        yield


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    cgroups.remove(directory.name)


def prepare(stage: str) -> list[str]:
    """Build what is missing while the machine's network is there: inside there is none. What is said goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        tools.build_missing(tools.CONTROL_PLANE)
        if stage != "node":
            return []
        if reason := node_tools.obstacle():
            raise StageError(f"no node stage here: {reason}")
        tools.build_missing(tools.NODE)
        return [str(images.registry_directory())]


class _Supervisor:
    """Outside of the namespaces: starts what is inside, and tells it to end by closing its standard input."""

    def __init__(self, stage: str, directory: Path, door: socket.socket, inputs: list[str]) -> None:
        inside = [sys.executable, "-m", "tests.support.inside", stage, str(directory), str(door.fileno()), *inputs]
        self._command = [*namespaces(stage), *inside]
        self._door = door
        self.exit_code = 1

    async def run(self, *, detached: bool) -> bool:
        """Returns whether the logs are wanted."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[self._door.fileno()],
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        assert process.stdin is not None
        told, ended = asyncio.create_task(_told_to_end(detached=detached)), asyncio.create_task(process.wait())
        await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
        process.stdin.close()
        await asyncio.wait({ended}, timeout=_DOWN_TIMEOUT / 2)
        if not ended.done():
            process.kill()
        self.exit_code = await ended
        return self.exit_code != 0 or told.result() == KEEP_LOGS


async def _told_to_end(*, detached: bool) -> str:
    """By SIGTERM or SIGINT, or by the end of stdin; returns what came in before that."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    if not detached:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, reader.feed_eof)
    return (await reader.read()).decode().strip()


def _save_logs(directory: Path, stage: str) -> None:
    """The newest few are kept."""
    kept = CHECKOUT / ".cache" / "logs"
    target = kept / f"{time.strftime('%Y%m%d-%H%M%S')}-{stage}-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(directory / "logs", target)
        print(f"The {stage} stage's logs are kept in {target}", file=sys.stderr)
    for old in sorted(kept.glob("*"))[:-_KEPT_LOGS]:
        shutil.rmtree(old, ignore_errors=True)


def up(options: argparse.Namespace) -> int:
    """Start the stage in the background and say how to use it."""
    if (known := _read_state(options.stage)) is not None:
        print(f"The {options.stage} stage is up already: export KUBECONFIG={known['kubeconfig']}")
        return 0
    prepare(options.stage)
    command = [sys.executable, "-m", "tests.support.stage", "run", options.stage, "--detached"]
    said = _state_file(options.stage).with_suffix(".log")
    with said.open("w") as errors:  # ours may be a pipe, and whoever reads that would wait for the stage to end
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    with waiting(f"waiting for the {options.stage} stage to be up", after=SOON):
        line = process.stdout.readline()
    if not line:
        process.wait()
        print(said.read_text().rstrip(), file=sys.stderr)
        return 1
    description = json.loads(line)
    _state_file(options.stage).write_text(json.dumps({**description, "pid": process.pid}))
    print(f"The {options.stage} stage is up: export KUBECONFIG={description['kubeconfig']}")
    process.returncode = 0  # it goes on without us
    return 0


def down(options: argparse.Namespace) -> int:
    """End the stage and wait until it has cleaned up."""
    known = _read_state(options.stage)
    if known is None:
        print(f"The {options.stage} stage is not up")
        return 0
    os.kill(known["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_TIMEOUT
    while _is_stage(known["pid"]):
        if time.monotonic() > deadline:
            raise StageError(f"the stage (pid {known['pid']}) does not end; its files are in {known['directory']}")
        time.sleep(0.1)
    _state_file(options.stage).unlink()
    _state_file(options.stage).with_suffix(".log").unlink(missing_ok=True)
    print(f"The {options.stage} stage is gone")
    return 0


def status(options: argparse.Namespace) -> int:
    """Exit 0 and the description when the stage is up, else exit 3."""
    known = _read_state(options.stage)
    print(json.dumps(known, indent=2) if known else f"The {options.stage} stage is not up")
    return 0 if known else 3


def _state_file(stage: str) -> Path:
    cache_root().mkdir(parents=True, exist_ok=True)
    return cache_root() / f"{stage}.stage.json"


def _read_state(stage: str) -> dict[str, Any] | None:
    path = _state_file(stage)
    if not path.exists():
        return None
    known: dict[str, Any] = json.loads(path.read_text())
    return known if _is_stage(known["pid"]) else None


def _is_stage(pid: int) -> bool:
    """Whether that process is still a stage of ours and not another that got its number."""
    try:
        return b"tests.support.stage" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
