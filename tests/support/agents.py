"""Sessions inside the event loop, so that one test process can be a thousand agents: see app.agent.agent.Agent."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from app.agent.session import SessionFailedError
from app.proto.velda_pb2 import SessionRequest


class LoopSession:
    """Greets each connection as the real one does; ends when it is told to, or when the test calls ``finish``."""

    def __init__(self, request: SessionRequest, server: asyncio.Server, *, stubborn: bool) -> None:
        self.request = request
        self.port: int = server.sockets[0].getsockname()[1]
        self.host_key = os.urandom(32)
        self.terminated = asyncio.Event()
        self._server = server
        self._stubborn = stubborn
        self._ended = asyncio.Event()

    def finish(self) -> None:
        self._server.close()
        self._ended.set()

    async def wait(self) -> None:
        await self._ended.wait()

    def terminate(self) -> None:
        self.terminated.set()
        if not self._stubborn:
            self.finish()

    def kill(self) -> None:
        self.finish()


class LoopRunner:
    """``host`` is where sessions listen: the pod's address. Attributes say how starts go from now on.

    ``failing``: every start fails. ``gate``: cleared, starts wait for it. ``stubborn``: sessions ignore SIGTERM.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sessions: dict[str, LoopSession] = {}
        self.failing = False
        self.stubborn = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._host = host

    async def start(self, request: SessionRequest) -> LoopSession:
        await self.gate.wait()
        if self.failing:
            raise SessionFailedError("the test says so")

        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"velda session {request.session_id}\n".encode())
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(greet, self._host, 0)
        session = LoopSession(request, server, stubborn=self.stubborn)
        self.sessions[request.session_id] = session
        return session
