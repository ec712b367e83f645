"""One agent's stream: what it says goes to the registry, what the registry says goes out, in order."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc

from app.broker.access import Credentials
from app.broker.bounds import Bounds
from app.broker.identity import NO_CREDENTIALS, Admitted, Gatekeeper
from app.broker.parsing import Malformed, malformed
from app.broker.refusal import RefusedError
from app.broker.registry import Registry
from app.broker.reports import reports
from app.core.words import printable
from app.proto import velda_pb2

END_TIMEOUT = 10.0
"""Seconds that a peer has to read what was sent before the end of its stream, and the end."""
BREAK_STEPS = 20
BREAK_STEP = 0.01
"""Seconds, and how often, to wait for gRPC to report a broken stream once its reading end is over. Steps, since what
must pass are turns of the event loop: a single sleep is over before them when the loop is busy."""

Context = grpc.aio.ServicerContext[velda_pb2.AgentUpdateRequest, velda_pb2.AgentUpdateResponse]


class _End(NamedTuple):
    why: RefusedError | None


class AgentStream:
    """The registry's Link, and the loop around it. ``run`` returns when the stream is to end cleanly."""

    def __init__(
        self,
        registry: Registry,
        gatekeeper: Gatekeeper,
        context: Context,
        credentials: Credentials = NO_CREDENTIALS,
        *,
        bounds: Bounds,
    ) -> None:
        self._registry = registry
        self._bounds = bounds
        self._gatekeeper = gatekeeper
        self._context = context
        self._credentials = credentials
        self._outbox: asyncio.Queue[velda_pb2.AgentUpdateResponse | _End] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._unread = False

    def send(self, message: velda_pb2.AgentUpdateResponse) -> None:
        """What an agent that does not read cannot be sent is not kept: its stream breaks."""
        if self._outbox.qsize() < self._bounds.unread_messages:
            self._outbox.put_nowait(message)
        elif self._task and not self._unread:
            self._unread = True
            reports.refused(self._bounds.unread(), call="AgentUpdate", peer=self._context.peer())
            self._task.cancel()

    def close(self, why: RefusedError | None) -> None:
        self._outbox.put_nowait(_End(why))
        if self._task:
            self._task.get_loop().call_later(END_TIMEOUT, self._task.cancel)

    async def run(self) -> None:
        """Raises RefusedError; cancelled when the connection breaks."""
        self._task = asyncio.current_task()
        with self._bounds.arriving(self._context.peer()):
            first = await self._first()
            if first is None:
                return
            admitted = await self._join(first)
        reader = asyncio.create_task(self._read(), name=f"read from {admitted.name}")
        try:
            await self._write()
        finally:
            self._registry.lost(self)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _join(self, first: velda_pb2.AgentUpdateRequest) -> Admitted:
        identity = first.agent_identity
        try:
            self._bounds.check_join(first)
            admitted = await self._gatekeeper.admit(identity, self._context.peer(), self._credentials)
            self._registry.join(
                pool=admitted.pool,
                name=admitted.name,
                address=admitted.address,
                strength=admitted.strength,
                first=first,
                link=self,
            )
        except RefusedError as why:
            why.about = {"pool": printable(identity.pool), "agent": printable(identity.agent_id)}
            raise
        return admitted

    async def _first(self) -> velda_pb2.AgentUpdateRequest | None:
        try:
            async with asyncio.timeout(self._bounds.first_message_seconds):
                return await self._receive()
        except TimeoutError:
            raise self._bounds.nothing_said() from None

    async def _receive(self) -> velda_pb2.AgentUpdateRequest | None:
        message: object = await self._context.read()
        if isinstance(message, Malformed):
            raise malformed()
        return message if isinstance(message, velda_pb2.AgentUpdateRequest) else None

    async def _read(self) -> None:
        """A broken stream ends the reading too, just before gRPC cancels the call: that is no half-close."""
        try:
            while message := await self._receive():
                self._bounds.check_message(message)
                self._registry.receive(self, message)
        except RefusedError as why:
            self._registry.expel(self, why)
            return
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
