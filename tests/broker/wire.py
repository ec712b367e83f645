"""A broker on a loopback port, and agents and clients that speak the protocol over real connections to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from app.broker.access import Access, Open
from app.broker.handshakes import handshakes
from app.broker.proofs import Review, review_none
from app.broker.registry import Registry
from app.broker.server import BrokerServer
from app.core.agents import PoolDirectory
from app.model.meta import NamespacedName
from app.proto import velda_pb2, velda_pb2_grpc
from app.settings import AgentAuthentication, Agents, Broker, Limits, Settings
from certs.authority import KeyPair
from certs.grpc_server import server_credentials


@dataclass(frozen=True)
class Tls:
    """What a broker serves, the CAs that it takes agents' certificates of, and those that TLS lets in."""

    pair: KeyPair
    bundle: bytes
    trusted: bytes | None = None

    def credentials(self) -> grpc.ServerCredentials:
        trusted = (lambda: self.trusted or b"") if self.trusted else None
        return server_credentials(lambda: self.pair, trusted=trusted, begins=handshakes.begins)


BASE = Settings.model_validate({"provisioners": [{"kubernetes": {"namespace": "default"}}]})


class Plane:
    """The server's parts, and a channel to it."""

    def __init__(self, registry: Registry, server: BrokerServer, port: int, changes: asyncio.Event) -> None:
        self.registry = registry
        self.server = server
        self.port = port
        self._changes = changes
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.broker = velda_pb2_grpc.BrokerServiceStub(self.channel)
        self.pools = velda_pb2_grpc.PoolManagerServiceStub(self.channel)

    async def seen(
        self,
        pool: NamespacedName,
        *,
        connected: int | None = None,
        sessions: int | None = None,
        pending: int | None = None,
    ) -> None:
        """Wait until the registry shows so many connected agents, sessions on agents, and waiting sessions."""
        while True:
            self._changes.clear()
            agents = self.registry.pool_agents(pool)
            up = sum(agent.connected for agent in agents.agents.values())
            held = sum(agent.sessions for agent in agents.agents.values())
            if connected in (None, up) and sessions in (None, held) and pending in (None, agents.pending_sessions):
                return
            await self._changes.wait()


@asynccontextmanager
async def serving(
    pools: PoolDirectory,
    *,
    authentication: AgentAuthentication = "none",
    port: int = 0,
    review: Review = review_none,
    access: Access | None = None,
    tls: Tls | None = None,
    changed: Callable[[NamespacedName], None] = lambda pool: None,
    limits: Limits = BASE.limits,
) -> AsyncIterator[Plane]:
    changes = asyncio.Event()

    def on_change(pool: NamespacedName) -> None:
        changes.set()
        changed(pool)

    registry = Registry(pools, clock=asyncio.get_running_loop().time, on_change=on_change)
    settings = BASE.model_copy(
        update={
            "broker": Broker.model_construct(host="127.0.0.1", port=port),
            "limits": limits,
            "agents": Agents(authentication=authentication, image="velda", certificate_url="https://velda"),
        }
    )
    server = BrokerServer(
        registry,
        pools,
        access=access or Open(),
        settings=settings,
        review=review,
        tls=tls.credentials() if tls else None,
        bundle=lambda: tls.bundle if tls else b"",
    )
    plane = Plane(registry, server, await server.start(), changes)
    try:
        yield plane
    finally:
        await plane.channel.close()
        await server.stop(0.5)


class WireAgent:
    """One agent's stream, on a connection of its own."""

    def __init__(
        self, target: int | str, name: str, *, token: str = "", credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        """``target`` is a port of this machine, or what gRPC dials."""
        self.name = name
        options = [("grpc.use_local_subchannel_pool", 1)]
        dial = target if isinstance(target, str) else f"127.0.0.1:{target}"
        if credentials:
            self._channel = grpc.aio.secure_channel(dial, credentials, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(dial, options=options)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.call = velda_pb2_grpc.BrokerServiceStub(self._channel).AgentUpdate(metadata=metadata)

    async def join(
        self, *, pool: str = "cpu", slots: int = 1, running: tuple[velda_pb2.CurrentExecution, ...] = ()
    ) -> str:
        """Returns the server's version."""
        identity = velda_pb2.AgentIdentity(agent_id=self.name, hostname=self.name, pool=pool)
        await self.say(agent_identity=identity, slots=slots, current_executions=running)
        return (await self.hear()).server_info.version

    async def say(self, **fields: object) -> None:
        await self.call.write(velda_pb2.AgentUpdateRequest(**fields))  # type: ignore[arg-type]

    async def hear(self) -> velda_pb2.AgentUpdateResponse:
        message = await self.call.read()
        assert isinstance(message, velda_pb2.AgentUpdateResponse), await self.call.code()
        return message

    async def start(self, *, success: bool = True) -> velda_pb2.SessionRequest:
        """Answer the next session request."""
        request = (await self.hear()).session_request
        response = velda_pb2.SessionInitResponse(
            instance_id=request.instance_id, session_id=request.session_id, success=success, port=22, host_key=b"k"
        )
        await self.say(session_init_response=response)
        return request

    async def end(self, request: velda_pb2.SessionRequest) -> None:
        done = velda_pb2.SessionCompletion(instance_id=request.instance_id, session_id=request.session_id)
        await self.say(session_completion=done)

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the server to end the stream."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        return await self.call.code(), await self.call.details() or ""

    async def vanish(self) -> None:
        """Break the connection."""
        self.call.cancel()
        await self._channel.close()


@asynccontextmanager
async def agent(plane: Plane, name: str = "a", **join: object) -> AsyncIterator[WireAgent]:
    wire = WireAgent(plane.port, name)
    try:
        await wire.join(**join)  # type: ignore[arg-type]
        yield wire
    finally:
        await wire.vanish()
