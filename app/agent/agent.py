"""One worker agent: joins the broker, takes sessions, and joins again for as long as it lives.

Many can live in one event loop (tests do), so all its state is in the object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from app.agent.session import SessionRunner
from app.agent.sessions import Sessions
from app.proto.velda_pb2 import AgentIdentity, AgentUpdateRequest, AgentUpdateResponse
from app.proto.velda_pb2_grpc import BrokerServiceStub

HEARTBEAT = 30.0
"""Seconds of silence after which an empty message is sent."""
REJOIN_AFTER = 1.0
"""Seconds from a clean end of the stream to the next one."""
BACKOFF_FIRST = 1.0
BACKOFF_MAX = 15.0
FAREWELL = 5.0
"""Seconds that the server has to end a stream that was half-closed."""

_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),  # a server that is gone without a word is noticed within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, also with other agents in the process
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)

log = logging.getLogger(__name__)

_Call = grpc.aio.StreamStreamCall[AgentUpdateRequest, AgentUpdateResponse]


@dataclass(frozen=True)
class Identity:
    """Who the agent is to the server: ``agent_id`` is the pod's name in Kubernetes."""

    agent_id: str
    pool: str
    hostname: str = ""


class Agent:
    """``target`` is whatever gRPC dials (host:port, unix:/path); ``credentials`` are asked for anew each time,
    since what they are made from may change; None means plaintext.

    ``token`` is the file whose content, where there is one, proves to the server which pod this is.
    ``joined`` is set while the server has answered a stream that stands.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        target: str,
        runner: SessionRunner,
        slots: int = 1,
        credentials: Callable[[], grpc.ChannelCredentials] | None = None,
        token: Path | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self.identity = identity
        self.joined = asyncio.Event()
        self._target = target
        self._slots = slots
        self._credentials = credentials
        self._token = token
        self._heartbeat = heartbeat
        self._outbox: deque[AgentUpdateRequest] = deque()
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._half_close = False
        self._failures = 0
        self._sessions = Sessions(runner=runner, slots=slots, send=self._post)

    def stop(self) -> None:
        """End the sessions, take leave of the server, and let ``run`` return; as at SIGTERM."""
        self._stopping.set()

    async def run(self) -> None:
        """Until ``stop``. Cancelled, it ends its sessions at once and tells nobody: as a machine that dies."""
        try:
            while not self._stopping.is_set():
                delay = await self._stream()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._stopping.wait()
            await self._sessions.stop()
        finally:
            await self._sessions.close()

    async def _stream(self) -> float:
        """One stream from its first message to its end; returns the seconds until the next is due."""
        try:
            async with await self._channel() as channel:
                await self._converse(BrokerServiceStub(channel).AgentUpdate(metadata=self._metadata()))
            log.info("the stream ended")
            return REJOIN_AFTER
        except grpc.aio.AioRpcError as error:
            delay = backoff(self._failures, jitter=random.random())  # noqa: S311
            self._failures += 1
            log.warning("no stream: %s: %s; next try in %.1f s", error.code().name, error.details(), delay)
            return delay
        finally:
            self.joined.clear()
            self._sessions.abandon_starting()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """The token as it is now: the kubelet renews it."""
        try:
            return (("authorization", f"Bearer {self._token.read_text().strip()}"),) if self._token else ()
        except OSError:
            return ()

    async def _channel(self) -> grpc.aio.Channel:
        if self._credentials:
            credentials = await asyncio.to_thread(self._credentials)  # it may ask a server for them
            return grpc.aio.secure_channel(self._target, credentials, options=_OPTIONS)
        return grpc.aio.insecure_channel(self._target, options=_OPTIONS)

    async def _converse(self, call: _Call) -> None:
        """Read until the stream ends, while others write and, told to stop, take leave; AioRpcError as it ended."""
        reading = asyncio.create_task(self._read(call))
        others = (asyncio.create_task(self._write(call)), asyncio.create_task(self._take_leave(reading)))
        try:
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.result()
        finally:
            for task in (reading, *others):
                task.cancel()
            call.cancel()
            await asyncio.gather(reading, *others, return_exceptions=True)

    async def _read(self, call: _Call) -> None:
        while isinstance(message := await call.read(), AgentUpdateResponse):
            if message.HasField("server_info"):
                log.info("joined pool %s as %s", self.identity.pool, self.identity.agent_id)
                self._failures = 0
                self.joined.set()
                self._news.set()
            if message.HasField("session_request"):
                self._sessions.request(message.session_request)
            if message.HasField("kill_session_request"):
                self._sessions.kill(message.kill_session_request)

    async def _write(self, call: _Call) -> None:
        """Whatever is posted, once the server has answered, for a stream may yet be refused; and heartbeats.

        A failed write needs no word here, for then reading fails too.
        """
        await call.write(self._first_message())
        while True:
            while self._outbox and self.joined.is_set():
                await call.write(self._outbox[0])
                self._outbox.popleft()
            if self._half_close:
                await call.done_writing()
                return
            self._news.clear()
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._news.wait()
            except TimeoutError:
                await call.write(AgentUpdateRequest())

    async def _take_leave(self, reading: asyncio.Task[None]) -> None:
        await self._stopping.wait()
        await self._sessions.stop()
        self._half_close = True
        self._news.set()
        await asyncio.sleep(FAREWELL)
        reading.cancel()

    def _first_message(self) -> AgentUpdateRequest:
        # Answers to what an earlier stream asked are stale; ends of sessions are still news.
        self._outbox = deque(message for message in self._outbox if message.HasField("session_completion"))
        return AgentUpdateRequest(
            agent_identity=AgentIdentity(
                agent_id=self.identity.agent_id, hostname=self.identity.hostname, pool=self.identity.pool
            ),
            slots=self._slots,
            current_executions=self._sessions.current(),
        )

    def _post(self, message: AgentUpdateRequest) -> None:
        self._outbox.append(message)
        self._news.set()


def backoff(failures: int, *, jitter: float) -> float:
    """Seconds to wait after ``failures`` earlier ones in a row; ``jitter`` in [0, 1) takes up to half of it away."""
    return float(min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(failures, 16)) * (1 - jitter / 2))
