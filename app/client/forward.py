"""The way to the server through the API server: ``kubectl port-forward``, which any cluster and any proxy knows."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import cast

from app.client.errors import ClientError, Exit
from app.client.options import Connection
from app.client.output import printable

SERVICE = "velda-apiserver"
TIMEOUT = 30.0
"""Seconds until kubectl must listen."""
LEADER_TIMEOUT = 10
"""Seconds that kubectl waits for a leader; it is asked again by those who can wait longer."""
_LISTENING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")


@contextlib.asynccontextmanager
async def forward(to: Connection) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that leads to the leader's HTTPS port for as long as the context lasts. ClientError."""
    try:
        kubectl = await asyncio.create_subprocess_exec(
            "kubectl",
            *(["--kubeconfig", str(to.kubeconfig)] if to.kubeconfig else []),
            *(["--context", to.context] if to.context else []),
            *("port-forward", f"--namespace={to.release_namespace}", "--address=127.0.0.1"),
            *(f"--pod-running-timeout={LEADER_TIMEOUT}s", f"service/{SERVICE}", ":https"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours: what is queued must be given up first
        )
    except OSError as error:
        raise ClientError(Exit.UNAVAILABLE, f"kubectl cannot be run: {error}; install it, or give --server") from error
    try:
        yield await _port(kubectl, to.release_namespace)
    finally:
        with contextlib.suppress(ProcessLookupError):
            kubectl.terminate()
        await kubectl.communicate()


async def _port(kubectl: asyncio.subprocess.Process, namespace: str) -> int:
    said: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            async for line in cast(asyncio.StreamReader, kubectl.stdout):
                if found := _LISTENING.match(line):
                    return int(found[1])
                said += line.decode(errors="replace").split()
    raise _failed(printable(" ".join(said)) or f"nothing in {TIMEOUT:.0f} s", namespace)


def _failed(said: str, namespace: str) -> ClientError:
    what = f"Service {namespace}/{SERVICE}: kubectl port-forward says: {said}"
    if "(Forbidden)" in said or "(Unauthorized)" in said:
        return ClientError(Exit.DENIED, f"{what}; give --server, or ask for create on pods/portforward")
    if "(NotFound)" in said:
        return ClientError(Exit.FAILED, f"{what}; give --release-namespace or --server")
    return ClientError(Exit.UNAVAILABLE, what, passing=True)
