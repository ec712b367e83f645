"""The gRPC server that agents and clients dial, for one term of leadership."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from app.broker.identity import Gatekeeper
from app.broker.registry import Registry
from app.broker.services import BrokerService, PoolManagerService
from app.core.agents import PoolDirectory
from app.model.meta import NamespacedName
from app.proto import velda_pb2_grpc
from app.settings import Settings

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival for its connections
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what a Go client may send at most
)
"""A peer that is gone without a word is noticed within 40 s."""

log = structlog.get_logger()


class BrokerServer:
    """Serves the registry; drives its clock."""

    def __init__(self, registry: Registry, pools: PoolDirectory, *, settings: Settings) -> None:
        self._registry = registry
        self._pools = pools
        self._settings = settings
        self._gatekeeper = Gatekeeper(pools, authentication=settings.agents.authentication)
        self._server: grpc.aio.Server | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises RuntimeError if it is taken."""
        server = grpc.aio.server(options=OPTIONS)
        velda_pb2_grpc.add_BrokerServiceServicer_to_server(BrokerService(self._registry, self._gatekeeper), server)
        velda_pb2_grpc.add_PoolManagerServiceServicer_to_server(PoolManagerService(self._pools), server)
        host, port = self._settings.broker.host, self._settings.broker.port
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await server.start()
        self._server = server
        self._registry.on_deadline(self._wake)
        log.info("broker listens", host=host, port=bound, authentication=self._settings.agents.authentication)
        return bound

    async def stop(self, grace: float) -> None:
        """End streams cleanly, so that agents join again at once elsewhere, and give calls ``grace`` seconds."""
        self._registry.stop()
        if self._alarm:
            self._alarm.cancel()
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
