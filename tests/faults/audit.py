"""What somebody outside sees of pools and pods by a watch of his own, and the promises that he finds broken."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from app.model.meta import POOL_LABEL
from tests.support.api import Api, Object


class Audit:
    """Pods and pools of one namespace, by name. ``peak`` is the most pods that a pool ever had, those going too.

    ``on_pod(pod, gone)`` hears of every change; ``busy(name)`` says whether a session runs there now.
    """

    def __init__(
        self, api: Api, namespace: str, *, on_pod: Callable[[Object, bool], None] | None, busy: Callable[[str], bool]
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._on_pod = on_pod
        self._busy = busy
        self._changed = asyncio.Event()
        self.pods: dict[str, Object] = {}
        self.pools: dict[str, Object] = {}
        self.leases: dict[str, Object] = {}
        self.peak: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self.broken: list[str] = []

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        core = f"/api/v1/namespaces/{self._namespace}/pods"
        pools = f"/apis/velda.io/v1/namespaces/{self._namespace}/agentpools"
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._follow(core, self.pods, POOL_LABEL)),
                group.create_task(self._follow(pools, self.pools)),
                group.create_task(self._follow(leases, self.leases)),
            ]
            yield
            for task in tasks:
                task.cancel()

    async def until(self, holds: Callable[[], bool], *, within: float, what: str) -> None:
        """AssertionError with the present state when that does not come to hold within so many seconds."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within:.0f} s: {what}; {self}") from None

    def of(self, pool: str) -> list[Object]:
        return [pod for pod in self.pods.values() if pool_of(pod) == pool]

    def status(self, pool: str) -> dict[str, Any]:
        status: dict[str, Any] = self.pools[pool].get("status", {}) if pool in self.pools else {}
        return status

    @property
    def leader(self) -> str:
        """Who holds the Lease, by his own name."""
        return next((str(lease["spec"].get("holderIdentity") or "") for lease in self.leases.values()), "")

    def broken_promises(self) -> list[str]:
        """All that has been wrong until now, and pods that are nobody's."""
        above = [
            f"{pool} had {peak} pods"
            for pool, peak in self.peak.items()
            if pool in self.pools and peak > self.pools[pool]["spec"]["autoscaler"]["maxReplicas"]
        ]
        owners = {pool["metadata"]["uid"] for pool in self.pools.values()}
        orphans = [
            f"{name} has no owner"
            for name, pod in self.pods.items()
            if not owners & {owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])}
        ]
        return [*self.broken, *above, *orphans]

    async def _follow(self, path: str, store: dict[str, Object], selector: str = "") -> None:
        async for gone, item in self._api.watch(path, selector=selector):
            name = item["metadata"]["name"]
            if store is self.pods:
                self._judge(item, gone=gone)
                self._count(item, gone=gone)
            if gone:
                store.pop(name, None)
            else:
                store[name] = item
            if store is self.pods and self._on_pod:
                self._on_pod(item, gone)
            self._changed.set()

    def _count(self, pod: Object, *, gone: bool) -> None:
        pool, known = pool_of(pod), pod["metadata"]["name"] in self.pods
        self._present[pool] += (not known and not gone) - (known and gone)
        self.peak[pool] = max(self.peak[pool], self._present[pool])

    def _judge(self, pod: Object, *, gone: bool) -> None:
        """A pod that begins to go while a session runs there was deleted wrongly."""
        name = pod["metadata"]["name"]
        known = self.pods.get(name)
        going = known is not None and "deletionTimestamp" in known["metadata"]
        if not going and (gone or "deletionTimestamp" in pod["metadata"]) and self._busy(name):
            self.broken.append(f"{name} was deleted with a session")

    def __str__(self) -> str:
        told = {name: {k: v for k, v in self.status(name).items() if k != "rollout"} for name in sorted(self.pools)[:3]}
        phases = Counter((pool_of(pod), pod["status"].get("phase"), is_going(pod)) for pod in self.pods.values())
        return f"leader {self.leader!r}, pods {dict(phases.most_common(6))}, status {told}"


def pool_of(pod: Object) -> str:
    return str(pod["metadata"]["labels"][POOL_LABEL])


def is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def runs(pod: Object) -> bool:
    return pod["status"].get("phase") == "Running" and not is_going(pod)
