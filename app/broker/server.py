"""The gRPC server that agents and clients dial, for one term of leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import structlog

from app.broker.about import About
from app.broker.access import Access
from app.broker.bounds import Bounds
from app.broker.clients import Clients
from app.broker.handshakes import handshakes
from app.broker.identity import Gatekeeper
from app.broker.parsing import Parsing
from app.broker.proofs import Review, review_none
from app.broker.registry import Registry
from app.broker.services import BrokerService, PoolManagerService
from app.core.agents import PoolDirectory
from app.model.meta import NamespacedName
from app.proto import velda_pb2_grpc
from app.settings import Limits, Settings

HANDSHAKE_TIMEOUT = 20.0
"""Seconds that a new connection has until it speaks HTTP/2."""
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival for its connections
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIMEOUT * 1000)),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what a Go client may send at most
)
"""A peer that is gone without a word is noticed within 40 s; one that pings more often than it may is sent away."""

log = structlog.get_logger()


class BrokerServer:
    """Serves the registry; drives its clock."""

    def __init__(
        self,
        registry: Registry,
        pools: PoolDirectory,
        *,
        access: Access,
        settings: Settings,
        review: Review = review_none,
        tls: grpc.ServerCredentials | None = None,
        bundle: Callable[[], bytes] = bytes,
    ) -> None:
        """``review`` tells whose an agent's token is, ``bundle`` has the CAs (PEM) of agents' certificates: without
        them, none is valid. ``tls`` is what the port is served with, None for plaintext.
        """
        self.bounds = Bounds(settings.limits)
        self.clients = Clients(registry, pools, access, self.bounds)
        self._registry = registry
        self._pools = pools
        self._settings = settings
        self._gatekeeper = Gatekeeper(
            pools, authentication=settings.agents.authentication, review=review, bundle=bundle
        )
        self._tls = tls
        self._about = About()
        self._server: grpc.aio.Server | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._handshakes: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises RuntimeError if it is taken."""
        server = grpc.aio.server(interceptors=[Parsing()], options=(*OPTIONS, *_options(self._settings.limits)))
        broker = BrokerService(self._registry, self._gatekeeper, self.clients, self.bounds)
        velda_pb2_grpc.add_BrokerServiceServicer_to_server(broker, server)
        manager = PoolManagerService(self.clients)
        velda_pb2_grpc.add_PoolManagerServiceServicer_to_server(manager, server)
        await self._about.add_to(server)
        host, port = self._settings.broker.host, self._settings.broker.port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        bound = server.add_secure_port(address, self._tls) if self._tls else server.add_insecure_port(address)
        await server.start()
        self._server = server
        self._registry.on_deadline(self._wake)
        self._handshakes = asyncio.create_task(handshakes.run(), name="look after handshakes")
        authentication = self._settings.agents.authentication
        log.info("broker listens", host=host, port=bound, tls=self._tls is not None, authentication=authentication)
        return bound

    async def stop(self, grace: float) -> None:
        """End streams cleanly, so that agents join again at once elsewhere, and give calls ``grace`` seconds."""
        self._registry.stop()
        await self._about.stopping()
        for watch in (self._alarm, self._handshakes):
            if watch:
                watch.cancel()
        if self._server:
            await self._server.stop(grace)
            self._server = None

    def pod_changed(self, pool: NamespacedName, name: str) -> None:
        """Must be called for each change of a worker pod: agents wait for theirs to appear, or lose it."""
        self._gatekeeper.pod_changed(pool, name)
        pod = self._pools.find_pod(pool, name)
        if pod and pod.terminating:
            self._registry.terminating(pool, name)

    def _wake(self, when: float) -> None:
        """Tick at that time, and then whenever something is due."""
        if self._alarm:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._tick)

    def _tick(self) -> None:
        self._registry.tick()
        if (due := self._registry.next_deadline()) is not None:
            self._wake(due)


def _options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """What gRPC itself refuses, before anything of it is read here."""
    return (
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.max_allowed_incoming_connections", limits.connections),
    )
