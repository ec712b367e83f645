"""A plane that may be hurt, and on it one scene after another: a namespace, servers, agents, clients, an audit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench.bench import pool
from tests.bench.process import Server, serving
from tests.e2e.product import Sessions
from tests.faults.audit import Audit, runs
from tests.faults.crew import Crew
from tests.faults.proxy import ApiProxy, Door
from tests.support.api import Api
from tests.support.cluster import Cluster
from tests.support.plane import Plane
from tests.support.plane_stage import raised

STARTING = 120.0
"""Seconds that a process may take to be there: not what is tested, and machines may be busy."""
SHORT_LEASE = "leader_election: {lease_duration: 5, renew_deadline: 4, retry_period: 0.5}\n"


@dataclass
class World:
    """A control plane of our own, in this process, so that its parts can be ended and started.

    ``lost`` counts the sessions that ended in all its scenes though they were to be kept.
    """

    plane: Plane
    cluster: Cluster
    api: Api
    lost: int = 0


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="velda-faults-")))
        plane, _ = await raised(directory, stack)
        cluster = Cluster(kubeconfig=plane.kubeconfig, directory=directory)
        await asyncio.to_thread(cluster.install_crd)
        yield World(plane, cluster, await stack.enter_async_context(Api(plane.kubeconfig)))


class Scene:
    """``kept`` are the sessions that nothing may end; ``servers`` those that were started, by process id."""

    def __init__(self, world: World, namespace: str, *, agents: bool) -> None:
        self.world = world
        self.namespace = namespace
        self.kept: set[str] = set()
        self.servers: dict[int, Server] = {}
        self.door = Door(self._leader)
        self.crew = Crew(self.door.address)
        on_pod = self.crew.observe if agents else None
        self.audit = Audit(world.api, namespace, on_pod=on_pod, busy=self.crew.busy)
        self.sessions = Sessions(self.door.address)

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[Self]:
        async with self.door.listening(), self.audit.watching(), self.sessions:
            try:
                yield self
            finally:
                self.world.lost += len(self.kept - self.crew.running)
                await self.crew.stop()

    @property
    def api(self) -> Api:
        return self.world.api

    @contextlib.asynccontextmanager
    async def server(self, proxy: ApiProxy | None = None, **options: Any) -> AsyncIterator[Server]:
        """A replica, which reaches the API server through ``proxy`` if there is one."""
        plane, settings = self.world.plane, options.pop("settings", SHORT_LEASE)
        kubeconfig = proxy.kubeconfig if proxy else plane.kubeconfig
        serve = serving(kubeconfig, plane.directory, namespace=self.namespace, settings=settings, **options)
        async with serve as server:
            self.servers[server.pid] = server
            try:
                yield server
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGCONT)  # a process that stands still does not end

    @contextlib.asynccontextmanager
    async def proxy(self) -> AsyncIterator[ApiProxy]:
        async with ApiProxy(self.world.plane, self.world.plane.pki) as proxy:
            try:
                yield proxy
            finally:
                proxy.heal()

    async def led_by(self, server: Server, *, within: float = STARTING) -> None:
        what = f"process {server.pid} leads"
        await self.audit.until(lambda: self._leads(server), within=within, what=what)

    async def create(self, name: str, **autoscaler: int) -> None:
        body = pool(name, **{"joinTimeoutSecond": 600, "maxIdle": 1000, "idleDecaySecond": 600} | autoscaler)
        await self.api.create(f"/apis/velda.io/v1/namespaces/{self.namespace}/agentpools", body)

    async def change(self, name: str, **autoscaler: int) -> None:
        path = f"/apis/velda.io/v1/namespaces/{self.namespace}/agentpools/{name}"
        await self.api.patch(path, {"spec": {"autoscaler": autoscaler}})

    async def start(self, pool: str, count: int) -> None:
        """Sessions that must be kept."""
        starts = (self.sessions.run(f"{self.namespace}/{pool}") for _ in range(count))
        self.kept |= {status.session_id for status in await asyncio.gather(*starts)}

    async def grown(self, name: str, server: Server) -> None:
        """The pool ``name`` of four, two of them with sessions, of at most twelve; ``server`` leads."""
        await self.led_by(server)
        await self.create(name, maxReplicas=12, minReplicas=4, minIdle=2)
        await self.right(name, 4, within=STARTING)
        await self.start(name, 2)

    async def right(self, pool: str, size: int, *, within: float, **status: int) -> None:
        """The check after every fault: in time all is as wanted, and nothing was done that must not be.

        The pool has ``size`` pods, all running and their agents joined, and its status says so and is Ready; every
        session that is to be kept runs, and the leader knows it; no promise was broken on the way.
        """
        async with asyncio.timeout(within + 10):
            what = f"pool {pool} of {size}, {len(self.kept)} sessions"
            wanted = {"replicas": size, "readyReplicas": size, "unknownReplicas": 0, **status}
            await self.audit.until(lambda: self._is_right(pool, size, wanted), within=within, what=what)
            lost = self.kept - self.crew.running
            assert not lost, f"sessions lost: {lost}"
            known = {session.session_id for session in await self.sessions.list()}
            assert self.kept <= known, f"sessions that the leader does not know: {self.kept - known}"
        assert not (broken := self.audit.broken_promises()), broken

    def _is_right(self, pool: str, size: int, wanted: dict[str, int]) -> bool:
        pods, status = self.audit.of(pool), self.audit.status(pool)
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
        generation = self.audit.pools[pool]["metadata"]["generation"] if pool in self.audit.pools else None
        return (
            len(pods) == size
            and all(map(runs, pods))
            and ready
            and status.get("observedGeneration") == generation
            and all(status.get(key) == value for key, value in wanted.items())
        )

    def _leads(self, server: Server) -> bool:
        return self.audit.leader.endswith(f"-{server.pid}") and server.pid in self.servers

    def _leader(self) -> int | None:
        """The port of the process that the Lease names."""
        number = self.audit.leader.rpartition("-")[2]
        server = self.servers.get(int(number)) if number.isdigit() else None
        return int(server.broker.rpartition(":")[2]) if server else None


@contextlib.asynccontextmanager
async def scene(world: World, *, agents: bool = True) -> AsyncIterator[Scene]:
    """A namespace of its own, in which nothing runs yet; what is left there goes with the world."""
    namespace = await asyncio.to_thread(world.cluster.namespace)
    async with Scene(world, namespace, agents=agents).playing() as made:
        yield made
