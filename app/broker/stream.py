"""One agent's stream: what it says goes to the registry, what the registry says goes out, in order."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc

from app.broker.identity import Gatekeeper
from app.broker.refusal import Reason, RefusedError
from app.broker.registry import Registry
from app.proto import velda_pb2

FIRST_MESSAGE_TIMEOUT = 30.0
"""Seconds that a new stream has to say whose it is."""
BREAK_STEPS = 20
BREAK_STEP = 0.01
"""Seconds, and how often, to wait for gRPC to report a broken stream once its reading end is over. Steps, since what
must pass are turns of the event loop: a single sleep is over before them when the loop is busy."""

Context = grpc.aio.ServicerContext[velda_pb2.AgentUpdateRequest, velda_pb2.AgentUpdateResponse]


class _End(NamedTuple):
    why: RefusedError | None


class AgentStream:
    """The registry's Link, and the loop around it. ``run`` returns when the stream is to end cleanly."""

    def __init__(self, registry: Registry, gatekeeper: Gatekeeper, context: Context) -> None:
        self._registry = registry
        self._gatekeeper = gatekeeper
        self._context = context
        self._outbox: asyncio.Queue[velda_pb2.AgentUpdateResponse | _End] = asyncio.Queue()

    def send(self, message: velda_pb2.AgentUpdateResponse) -> None:
        self._outbox.put_nowait(message)

    def close(self, why: RefusedError | None) -> None:
        self._outbox.put_nowait(_End(why))

    async def run(self) -> None:
        """Raises RefusedError; cancelled when the connection breaks."""
        first = await self._first()
        if first is None:
            return
        admitted = await self._gatekeeper.admit(first.agent_identity, self._context.peer())
        self._registry.join(pool=admitted.pool, name=admitted.name, address=admitted.address, first=first, link=self)
        reader = asyncio.create_task(self._read(), name=f"read from {admitted.name}")
        try:
            await self._write()
        finally:
            self._registry.lost(self)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _first(self) -> velda_pb2.AgentUpdateRequest | None:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT):
                return await self._receive()
        except TimeoutError:
            message = f"no message within {FIRST_MESSAGE_TIMEOUT:.0f} s of the stream's start"
            raise RefusedError(Reason.BAD_REQUEST, message) from None

    async def _receive(self) -> velda_pb2.AgentUpdateRequest | None:
        message = await self._context.read()
        return message if isinstance(message, velda_pb2.AgentUpdateRequest) else None

    async def _read(self) -> None:
        """A broken stream ends the reading too, just before gRPC cancels the call: that is no half-close."""
        while message := await self._receive():
            self._registry.receive(self, message)
        for _ in range(BREAK_STEPS):
            await asyncio.sleep(BREAK_STEP)
        self._registry.left(self)

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            if isinstance(message, _End):
                if message.why:
                    raise message.why
                return
            await self._context.write(message)
