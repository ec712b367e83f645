"""Child processes that cannot outlive us: the kernel ends them with us, and their logs say why they ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class StageError(Exception):
    """A stage cannot be brought up; the text says what failed and shows the end of its log."""


def die_with_parent() -> None:
    """Between fork and exec: SIGKILL for this child when its parent ends, however that ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def bound(*command: str | Path) -> list[str]:
    """The command as a child that SIGKILL ends with its parent, for parents in which gRPC's threads run: a fork with
    Python between it and the exec crashes now and then."""
    return ["setpriv", "--pdeathsig=KILL", "--", *map(str, command)]


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody uses now, outside the range that outgoing connections take theirs from.

    Each process begins elsewhere: between this look and the bind another may have the same one.
    """
    first = os.getpid() * 101 % _PORTS
    for number in range(_PORTS):
        candidate = 20000 + (first + number) % _PORTS
        if candidate in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((address, candidate))
            except OSError:
                continue
        _handed_out.add(candidate)
        return candidate
    raise StageError(f"no free TCP port on {address}")


_handed_out: set[int] = set()
_PORTS = 12_000


def tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


class _Command(NamedTuple):
    words: list[str]
    env: Mapping[str, str] | None
    cwd: Path | None


class Children:
    """The processes of one stage."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._started: dict[str, _Command] = {}
        logs.mkdir(parents=True, exist_ok=True)

    async def start(
        self, name: str, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> asyncio.subprocess.Process:
        self._started[name] = _Command(bound(*command), env, cwd)
        return await self.again(name)

    async def again(self, name: str) -> asyncio.subprocess.Process:
        """Start it as it was started before."""
        command = self._started[name]
        with (self._logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command.words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=command.env,
                cwd=command.cwd,
                start_new_session=True,  # Ctrl-C is ours to handle, in order
            )
        self._running[name] = process
        return process

    async def kill(self, name: str) -> None:
        """As by kill -9; it is no longer missed."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    def check(self) -> None:
        """Raises StageError if one of them has ended."""
        for name, process in self._running.items():
            if process.returncode is not None:
                log = tail(self._logs / f"{name}.log")
                raise StageError(f"{name} ended with {process.returncode}; the end of its log:\n{log}")

    async def watch(self) -> None:
        """Returns never; raises StageError as soon as one of them ends."""
        waiting = [asyncio.ensure_future(process.wait()) for process in self._running.values()]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        self.check()

    async def stop(self) -> None:
        """At once: a stage has nothing to save."""
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
        for process in self._running.values():
            await process.wait()
        self._running.clear()


async def output_of(*command: str | Path, stdin: str | None = None) -> str:
    """What a command prints; raises StageError with what it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        *bound(*command),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate(None if stdin is None else stdin.encode())
    if process.returncode:
        text = (error or out).decode(errors="replace").strip()
        raise StageError(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} … failed:\n{text}")
    return out.decode(errors="replace")
