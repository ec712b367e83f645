"""What the process that runs a stage gives to it, and what it gets back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.plane import Plane
from tests.support.relay import relay

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Context:
    """``directory`` is the stage's own and is removed after it; what is pushed on ``stack`` ends with it.

    ``door`` is a listening socket outside of the stage's namespaces: the way in for kubectl. ``images`` is a registry's
    directory, for a stage with real containers.
    """

    directory: Path
    stack: AsyncExitStack
    door: socket.socket
    images: Path

    async def open_door(self, plane: Plane) -> Path:
        """Let connections through the door reach the API server; returns the kubeconfig for those outside."""

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                server = await asyncio.open_connection(plane.network.address, plane.port)
            except OSError:
                writer.transport.abort()
            else:
                await relay((reader, writer), server)

        listener = await asyncio.start_server(forward, sock=self.door)
        self.stack.callback(listener.close)
        path = self.directory / "kubeconfig"
        address = "https://{}:{}".format(*self.door.getsockname())
        path.touch(mode=0o600)
        path.write_text(plane.kubeconfig.read_text().replace(plane.server, address))
        return path


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that is up: how to use it, and a coroutine that ends only when a part of it fails."""

    description: dict[str, str]
    watch: Callable[[], Coroutine[Any, Any, None]]


Start = Callable[[Context], Coroutine[Any, Any, Running]]
