"""The server under test as a process, and what processes cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.support.process import bound, free_port
from tests.support.running import CHECKOUT

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """Any process of this machine, by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def command(self) -> list[str]:
        return Path(f"/proc/{self.pid}/cmdline").read_text().rstrip("\0").split("\0")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    async def core_share(self, seconds: float) -> float:
        """Of a core, over the next so many seconds."""
        before = self.cpu_seconds()
        await asyncio.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE


class Server(Process):
    """``python -m app serve`` by the current kubectl context; gRPC dials ``broker``, webhooks are at ``https``."""

    def __init__(self, process: asyncio.subprocess.Process, *, broker: str, https: str, log: Path) -> None:
        super().__init__(process.pid)
        self._process = process
        self.broker = broker
        self.https = https
        self.log = log

    async def logged(self, words: str, *, timeout: float = 120) -> None:
        """Wait until its log has the words; RuntimeError with the log's end if the process or the time ends before."""
        end = asyncio.get_running_loop().time() + timeout
        while words not in (text := self.log.read_text()):
            if self._process.returncode is not None:
                raise RuntimeError(f"the server has ended with {self._process.returncode}: {text[-2000:]}")
            if asyncio.get_running_loop().time() > end:
                raise RuntimeError(f"the server does not say {words!r} within {timeout} s: {text[-2000:]}")
            await asyncio.sleep(0.02)  # a file has no event


@contextlib.asynccontextmanager
async def serving(
    kubeconfig: Path,
    directory: Path,
    *,
    namespace: str = "",
    settings: str = "",
    port: int = 0,
    clients: str = "none",
    server: str = "",
    environment: Mapping[str, str] | None = None,
    module: str = "app",
    output: Path | None = None,
) -> AsyncIterator[Server]:
    """A server of our own for as long as the context lasts, ended by SIGTERM; of all namespaces unless one is given.

    ``settings`` are added to its file; ``port`` is what gRPC dials, ``clients`` how clients are authenticated,
    ``server`` more keys of that section; ``environment`` is added to ours.
    ``module`` is run in place of app; it prints to ``output``, if that is not its log.
    """
    https, grpc = free_port(), port or free_port()
    config, log = directory / f"velda-{https}.yaml", directory / f"velda-{https}.log"
    config.write_text(
        f"provisioners:\n  - kubernetes: {{{f'namespace: {namespace}' if namespace else 'all_namespaces: true'}}}\n"
        f"server: {{host: 127.0.0.1, port: {https}, client_port: {free_port()}, {server}}}\n"
        f"broker: {{host: 127.0.0.1, port: {grpc}}}\n"
        "agents: {authentication: none}\n"
        f"clients: {{authentication: {clients}}}\n" + settings
    )
    with (output or log).open("wb") as printed:
        process = await asyncio.create_subprocess_exec(
            *bound(sys.executable, "-m", module, "serve", "--config", config),
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {}), "KUBECONFIG": str(kubeconfig)},
            stdout=printed,
            stderr=printed,
        )
    try:
        yield Server(process, broker=f"127.0.0.1:{grpc}", https=f"https://127.0.0.1:{https}", log=log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), timeout=30)


def find(executable: str, *, under: Path) -> Process:
    """The process of that name whose command line mentions the stage's directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(executable.encode()) and any(str(under).encode() in word for word in words[1:]):
                return Process(int(path.parent.name))
    raise LookupError(f"no {executable} runs for {under}")
