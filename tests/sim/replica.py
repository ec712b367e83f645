"""One process of velda-apiserver in the simulation: app/service.py but for HTTPS, certificates, gRPC and Lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, cast

from app.broker.access import Open
from app.broker.registry import Registry
from app.broker.server import BrokerServer
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.pools import PoolController
from app.controller.watches import Watches
from app.kube.client import Client
from app.kube.events import EventRecorder
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName
from app.model.pod import Pod
from app.settings import Kubernetes, Provisioner, Settings
from tests.sim.client import SimClient

if TYPE_CHECKING:
    from tests.sim.world import World

SETTINGS = Settings(provisioners=[Provisioner(kubernetes=Kubernetes(all_namespaces=True))])


class Told:
    """In place of the EventRecorder: counts events by pool and reason."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def record(self, pool: AgentPool, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        about = (pool.metadata.uid, reason)
        self.counts[about] = self.counts.get(about, 0) + 1


class Replica:
    """It follows the API server from the start, and leads when it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sim = SimClient(
            world.api, world.loop, world.weather, stepped=world.step, told=self._told, answered=self._answered
        )
        self.client = cast(Client, self.sim)
        self.cache = PoolCache()
        self.watches = Watches(self.client, self.cache, namespaces=(), on_quota=self._quota_changed)
        self.config_maps = ConfigMaps(self.client, self.cache, name="velda-config", content="broker: {}\n")
        self.events = Told()
        self.registry: Registry | None = None
        self.controller: PoolController | None = None
        self.broker: BrokerServer | None = None
        self.leading_since = float("inf")
        self._watching = world.loop.create_task(self.watches.run())
        self._term: asyncio.Task[None] | None = None

    def lead(self) -> None:
        self._term = self.world.loop.create_task(self._lead())

    async def _lead(self) -> None:
        await self.watches.wait_synced()
        await self.watches.refresh()
        loop = self.world.loop
        registry = Registry(self.cache, clock=loop.time, on_change=self._agents_changed, wall=self.world.wall)
        self.controller = PoolController(
            client=self.client,
            cache=self.cache,
            agents=registry,
            events=cast(EventRecorder, self.events),
            config_maps=self.config_maps,
        )
        self.broker = broker = BrokerServer(registry, self.cache, access=Open(), settings=SETTINGS)
        registry.on_deadline(broker._wake)
        self.leading_since = loop.time()
        self.registry = registry
        self.world.checks.watch(registry)

        def pod_changed(key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
            if pod := new or old:
                self.world.checks.shown.add((self, pod.metadata.name))
                broker.pod_changed(key, pod.metadata.name)

        with self.cache.listening(pod=pod_changed):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.controller.run())
                tasks.create_task(self.config_maps.run())

    def _agents_changed(self, pool: NamespacedName) -> None:
        if self.controller:
            self.controller.wake(pool)

    def _quota_changed(self, namespace: str) -> None:
        if self.controller:
            self.controller.quota_changed(namespace)

    def _told(self, verb: str, plural: str, key: tuple[str, str], body: Any) -> None:
        self.world.checks.asked(self, verb, plural, key, body)

    def _answered(self, verb: str, plural: str, key: tuple[str, str], body: Any, *, failed: bool) -> None:
        self.world.checks.answered(self, verb, plural, key, body, failed=failed)

    def end(self, *, crash: bool) -> None:
        """The term is over: cleanly, so that agents and clients are sent away, or because the process is no more."""
        if self._term:
            self._term.cancel()
        self._watching.cancel()
        registry, self.registry, self.controller = self.registry, None, None
        if registry and not crash:
            registry.stop()
        if self.broker and self.broker._alarm:
            self.broker._alarm.cancel()
