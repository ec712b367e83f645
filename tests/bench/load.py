"""Agents and clients in processes of their own: tests/support/tools/load says how."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable

import msgspec

from app.model.meta import POOL_LABEL
from tests.bench.bench import Watch
from tests.support.process import bound, free_port, output_of
from tests.support.running import CHECKOUT
from tests.support.tools import tool


class Crew:
    """``joined`` is how many of them a server has taken."""

    def __init__(self) -> None:
        self.joined = 0
        self._changed = asyncio.Event()

    async def reach(self, count: int, *, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while self.joined != count:
                self._changed.clear()
                await self._changed.wait()

    async def follow(self, output: asyncio.StreamReader) -> None:
        async for line in output:
            self.joined = int(line)
            self._changed.set()


class Calls(msgspec.Struct, frozen=True):
    """What became of a client's calls; ``p50`` and ``p99`` in milliseconds, ``error`` is the first."""

    calls: int
    seconds: float
    p50: float
    p99: float
    failed: int
    error: str

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


@contextlib.asynccontextmanager
async def crew(target: str, watch: Watch) -> AsyncIterator[Crew]:
    """An agent for each pod that the watch knows, in one process; a session that one has started ends at once."""
    process, stdin, stdout = await _piped("agents", "-target", target)
    agents = Crew()
    following = asyncio.create_task(agents.follow(stdout))
    try:
        pods = [pod.metadata for pod in watch.informer.store.values()]
        lines = (f"{pod.namespace}/{pod.label(POOL_LABEL)} {pod.name}\n" for pod in pods)
        stdin.write("".join(lines).encode())
        await stdin.drain()
        yield agents
    finally:
        stdin.close()
        await process.wait()
        await following


async def calls(target: str, *, token: str = "", **flags: object) -> Calls:
    """Clients in one process that show the token, by its flags."""
    words = [f"-{name}={value}" for name, value in flags.items()]
    answer = await output_of(tool("velda-load"), "calls", f"-target={target}", *words, stdin=token)
    return msgspec.json.decode(answer, type=Calls)


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """The plainest server of the same library, a process too; what to dial."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *bound(sys.executable, "-m", "tests.bench.echo", str(port)), cwd=CHECKOUT
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


class Posting:
    """``calls`` is there once the load has ended."""

    calls: Calls


@contextlib.asynccontextmanager
async def posting(**flags: object) -> AsyncIterator[Posting]:
    """A client that posts for as long as the context lasts, by its flags."""
    process, stdin, stdout = await _piped("posts", *(f"-{name}={value}" for name, value in flags.items()))
    load = Posting()
    try:
        yield load
    finally:
        stdin.close()
        answer = await stdout.read()
        await process.wait()
    if process.returncode:
        raise RuntimeError(f"posts to {flags['url']} ended with {process.returncode}")
    load.calls = msgspec.json.decode(answer, type=Calls)


class Front:
    """A Service: connections that come from now on go to ``lead``'s servers (HOST:PORT) in turns."""

    def __init__(self, input_: asyncio.StreamWriter) -> None:
        self._input = input_

    async def lead(self, servers: Iterable[str]) -> None:
        self._input.write(f"{' '.join(servers)}\n".encode())
        await self._input.drain()


@contextlib.asynccontextmanager
async def front(listen: str) -> AsyncIterator[Front]:
    process = await asyncio.create_subprocess_exec(
        *bound(tool("velda-load"), "front", f"-listen={listen}"), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        yield Front(process.stdin)
    finally:
        process.stdin.close()
        await process.wait()


async def _piped(*words: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamWriter, asyncio.StreamReader]:
    """The load tool, with its standard input and output."""
    process = await asyncio.create_subprocess_exec(
        *bound(tool("velda-load"), *words), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return process, process.stdin, process.stdout
