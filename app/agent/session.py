"""What a session is to the agent, and sessions as child processes (app/agent/child.py)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from app.proto.velda_pb2 import SessionRequest

START_TIMEOUT = 30.0
"""Seconds that a start may take when the request does not say (init_timeout)."""

_CHILD = str(Path(__file__).with_name("child.py"))


class SessionFailedError(Exception):
    """A session could not be started; the text says why."""


class Session(Protocol):
    """One that runs: where to reach it, and how it ends."""

    port: int
    host_key: bytes

    async def wait(self) -> None:
        """Return once it has ended."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...


class SessionRunner(Protocol):
    """How an agent runs its sessions."""

    async def start(self, request: SessionRequest) -> Session:
        """A running session; SessionFailedError. Cancelled, it leaves nothing behind."""
        ...


class ProcessRunner:
    """Each session is a child process of ours, reaped when it ends."""

    def __init__(self) -> None:
        self._sessions: dict[int, ProcessSession] = {}

    async def start(self, request: SessionRequest) -> ProcessSession:
        session = self._spawn(request)
        try:
            async with asyncio.timeout(request.init_timeout.ToTimedelta().total_seconds() or START_TIMEOUT):
                await session.listening()
        except BaseException as error:
            session.kill()
            await session.wait()
            if isinstance(error, OSError | ValueError):  # a TimeoutError is an OSError
                raise SessionFailedError(f"the session's process did not come up: {error!r}") from error
            raise
        return session

    def _spawn(self, request: SessionRequest) -> ProcessSession:
        terminate = request.connection_finish_action == SessionRequest.CONNECTION_FINISH_ACTION_TERMINATE
        idle = max(0.0, request.idle_timeout.ToTimedelta().total_seconds())
        command = [sys.executable, "-I", "-S", _CHILD, request.session_id, str(idle), "terminate" if terminate else "-"]
        try:
            session = ProcessSession(command, forget=self._sessions.pop)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the session's id
            raise SessionFailedError(f"no process for the session: {error}") from error
        self._sessions[session.pid] = session
        return session

    def reap_all(self) -> None:
        """Reap whatever has ended, orphans that are not ours too: the duty of process 1 of a container."""
        while ended := _peek_ended():
            if session := self._sessions.get(ended):
                session.reap()
            else:
                os.waitpid(ended, 0)


class ProcessSession:
    """A session's process. Its end is seen through a pidfd: no thread and no signal handler for each."""

    def __init__(self, command: list[str], *, forget: Callable[[int], object]) -> None:
        self.port = 0
        self.host_key = b""
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self.pid = self._process.pid
        self._forget = forget
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self.reap)

    async def listening(self) -> None:
        """Wait for the line that the child prints once it listens; ValueError if it ends instead."""
        port, host_key = (await _first_line(self._process)).split()
        self.port, self.host_key = int(port), bytes.fromhex(host_key.decode())

    async def wait(self) -> None:
        await self._ended.wait()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> None:
        """The process has ended: take its status, so that it is no zombie, and tell whoever waits."""
        if self._ended.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()  # which is at once
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._forget(self.pid)
        self._ended.set()


async def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


def _peek_ended() -> int:
    """The pid of a child that has ended and was not reaped yet; 0 when there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended else 0
