"""The server under test as a process, and what processes cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.process import die_with_parent, free_port
from tests.support.running import CHECKOUT

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """Any process of this machine, by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE


class Server(Process):
    """``python -m app serve`` by the current kubectl context, all namespaces; ``broker`` is what gRPC dials."""

    def __init__(self, pid: int, *, broker: str, log: Path) -> None:
        super().__init__(pid)
        self.broker = broker
        self.log = log

    async def logged(self, words: str) -> None:
        """Wait until its log has the words."""
        while words not in self.log.read_text():  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(
    kubeconfig: Path, directory: Path, *, namespace: str = "", settings: str = ""
) -> AsyncIterator[Server]:
    """A server of our own for as long as the context lasts, ended by SIGTERM; of all namespaces unless one is given.

    ``settings`` are added to its file.
    """
    https, grpc = free_port(), free_port()
    config, log = directory / f"velda-{https}.yaml", directory / f"velda-{https}.log"
    config.write_text(
        f"provisioners:\n  - kubernetes: {{{f'namespace: {namespace}' if namespace else 'all_namespaces: true'}}}\n"
        f"server: {{host: 127.0.0.1, port: {https}}}\n"
        f"broker: {{host: 127.0.0.1, port: {grpc}}}\n"
        "agents: {authentication: none}\n" + settings
    )
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "app", "serve", "--config", str(config)),
            cwd=CHECKOUT,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
        )
    try:
        yield Server(process.pid, broker=f"127.0.0.1:{grpc}", log=log)
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
