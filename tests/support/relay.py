"""Bytes from one connection to another, half-closes included, until both sides are done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 1 << 16


async def relay(client: Stream, server: Stream, *, flowing: asyncio.Event | None = None) -> None:
    """An error on either side ends both, so that each peer sees it; while ``flowing`` is clear nothing passes."""
    writers = client[1], server[1]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(client[0], server[1], flowing))
            group.create_task(_pump(server[0], client[1], flowing))
    except* OSError:
        for writer in writers:
            writer.transport.abort()
    finally:
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event | None) -> None:
    while chunk := await reader.read(_CHUNK):
        if flowing is not None:
            await flowing.wait()
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class SourceRelay:
    """A unix socket whose connections go on from the address ``source``: gRPC cannot choose its own.

    Each goes to what ``target`` gives then, host and port; it raises OSError when there is nothing.
    """

    def __init__(self, path: Path, *, target: Callable[[], Awaitable[tuple[str, int]]], source: str) -> None:
        self._path = path
        self._target = target
        self._source = source
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def silence(self) -> None:
        """Connections stay, but nothing passes any more: what a dead network looks like to both sides."""
        self._flowing.clear()

    def cut(self) -> None:
        """What the peer of a machine that is gone sees at the latest: its connections are reset."""
        for writer in self._writers:
            writer.transport.abort()
        self._flowing.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Yields what gRPC dials."""
        server = await asyncio.start_unix_server(self._forward, self._path)
        try:
            yield f"unix:{self._path}"
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            backend = await asyncio.open_connection(*await self._target(), local_addr=(self._source, 0))
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, backend[1]}
        self._writers |= writers
        try:
            await relay((reader, writer), backend, flowing=self._flowing)
        finally:
            self._writers -= writers
