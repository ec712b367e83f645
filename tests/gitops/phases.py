"""The phases of a pool's life on the whole product, each as a GitOps tool gets it from the API server.

Agents join only when told to (``stage.velda.io/agent: absent``), so that every phase lasts until it has been seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.product import Product, Sessions, pool
from tests.support.api import Api
from tests.support.workers import FATE

Object = dict[str, Any]
Holds = Callable[[Object], bool]
NAME = "p"
BAD: dict[str, Any] = {"rollout": {"progressDeadlineSecond": 2}, "joinTimeoutSecond": 1}
"""Agents of this version are not told to join, and it is given up soon."""
WITHIN = 60.0
"""Seconds in which a phase comes."""


class Life:
    """Of one pool: every version of it that the API server tells of, and the first one of each phase."""

    def __init__(self, product: Product, sessions: Sessions, namespace: str) -> None:
        self.versions: list[Object] = []
        self.phases: dict[str, Object] = {}
        self.steady: list[Object] = []
        """Between being ready and the first edit, while sessions come and go."""
        self._product, self._sessions, self._namespace = product, sessions, namespace
        self._more = asyncio.Event()
        self._since = self._generation = 0

    async def live(self) -> None:
        async with self._followed():
            await self._fail()
            await self._fill()
            await self._serve()
            await self._change()
            await self._end()

    async def _fail(self) -> None:
        await self._apply(version=0, **BAD)
        await self._reach("new", lambda version: version["status"] == {"observedGeneration": -1})
        await self._reach("filling", has("Reconciling", "True", "Filling"))
        await self._reach("stalled", has("Stalled", "True"))

    async def _fill(self) -> None:
        await self._apply(version=1)
        await self._reach("edited", is_stale)
        # None of the first version is left, which could join too and take a session.
        ready, settled = has("Ready", "True", "IdleEnough"), counts(replicas=2, idleReplicas=2, outdatedReplicas=0)
        await self._reach("ready", lambda version: ready(version) and settled(version), joining=True)

    async def _serve(self) -> None:
        """Sessions take the idle agents, others join in their place, and those that are too many go."""
        began = len(self.versions) - 1
        running = [await self._sessions.run(f"{self._namespace}/{NAME}") for _ in range(2)]
        await self._reach("refilling", has("Ready", "True", "Refilling"))
        await self._reach("busy", counts(replicas=4, idleReplicas=2), joining=True)
        for session in running:
            await self._sessions.end(session)
        await self._reach("shrunk", counts(replicas=2, idleReplicas=2))
        self.steady = self.versions[began:]

    async def _change(self) -> None:
        await self._apply(version=2)
        await self._reach("rolling out", has("Reconciling", "True", "RollingOut"))
        await self._reach("rolled out", counts(updatedReplicas=2, outdatedReplicas=0), joining=True)
        await self._apply(version=3, **BAD)
        await self._reach("rolled back", has("Stalled", "True", "RolledBack"))
        await self._apply(version=2, maxReplicas=0, minIdle=0, maxIdle=0)
        await self._reach("suspended", has("Ready", "True"))

    async def _end(self) -> None:
        """While it has a session."""
        await self._apply(version=2)
        session = self._sessions.request(f"{self._namespace}/{NAME}")
        await self._reach("serving", counts(runningReplicas=1, idleReplicas=2), joining=True)
        await self._kubectl("delete", "agentpool", NAME, "--wait=false")
        await self._reach("deleting", lambda version: "deletionTimestamp" in version["metadata"])
        await session

    async def _apply(self, *, version: int, rollout: Mapping[str, Any] | None = None, **limits: Any) -> None:
        made = pool(NAME, **{"minIdle": 2, "maxIdle": 3, "idleDecaySecond": 1, **limits})
        labels = {"app": NAME, "version": str(version)}
        made["spec"]["template"]["metadata"] = {"labels": labels, "annotations": {FATE: "absent"}}
        made["spec"]["rollout"] = dict(rollout or {})
        self._generation += 1  # each has another spec
        await asyncio.to_thread(self._product.apply, made, namespace=self._namespace)

    async def _reach(self, phase: str, holds: Holds, *, joining: bool = False) -> None:
        """The first version since the last phase for which it holds; ``joining``: agents join when there is news."""
        try:
            async with asyncio.timeout(WITHIN):
                while (found := self._find(holds)) is None:
                    self._more.clear()
                    if joining:
                        await self._kubectl("annotate", "pods", "--all", "--overwrite", f"{FATE}=present")
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"not {phase} within {WITHIN} s: {self.versions[-1:]}") from None
        self.phases[phase], self._since = found, self.versions.index(found)

    def _find(self, holds: Holds) -> Object | None:
        present = (one for one in self.versions[self._since :] if one["metadata"]["generation"] >= self._generation)
        return next(filter(holds, present), None)

    async def _kubectl(self, *args: str) -> None:
        await asyncio.to_thread(self._product.kubectl, *args, f"--namespace={self._namespace}")

    @asynccontextmanager
    async def _followed(self) -> AsyncIterator[None]:
        async with Api(self._product.stage.kubeconfig) as api:
            following = asyncio.create_task(self._follow(api))
            yield
        following.cancel()  # only now: a session that is closed waits for the sockets in use, and for no others
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, api: Api) -> None:
        async for change in api.watch(f"/apis/velda.io/v1/namespaces/{self._namespace}/agentpools"):
            self.versions.append(change.object)
            self._more.set()


def is_stale(version: Object) -> bool:
    """The controller has not told of this spec yet."""
    return bool(version["status"]["observedGeneration"] != version["metadata"]["generation"])


def has(kind: str, *told: str) -> Holds:
    """A status of the present spec, whose condition of this kind begins so: status, reason."""

    def holds(version: Object) -> bool:
        conditions = [] if is_stale(version) else version["status"]["conditions"]
        return any(one["type"] == kind and (one["status"], one["reason"])[: len(told)] == told for one in conditions)

    return holds


def counts(**fields: int) -> Holds:
    return lambda version: not is_stale(version) and fields.items() <= version["status"].items()
