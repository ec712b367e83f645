"""The informers that keep the caches warm, in every replica, whether it leads or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.controller.cache import PoolCache
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.kube.informer import Informer
from app.model.agentpool import AgentPool
from app.model.meta import POOL_LABEL
from app.model.pod import Pod
from app.model.quota import ResourceQuota
from app.model.revision import ControllerRevision

RETRY_FIRST = 0.5
RETRY_MAX = 5.0

log = structlog.get_logger()

_Informer = Informer[AgentPool] | Informer[Pod] | Informer[ControllerRevision] | Informer[ResourceQuota]


class Watches:
    """AgentPools, the pods and revisions that carry our label, and quotas: of the given namespaces, or of all."""

    def __init__(
        self, client: Client, cache: PoolCache, *, namespaces: tuple[str, ...], on_quota: Callable[[str], None]
    ) -> None:
        def quota_changed(old: ResourceQuota | None, new: ResourceQuota | None) -> None:
            quota = new or old
            if quota and (old is None or new is None or (old.spec, old.status) != (new.spec, new.status)):
                on_quota(quota.metadata.namespace)

        self._informers: list[_Informer] = []
        for namespace in namespaces or (None,):
            self._informers += [
                Informer(client, path=paths.agentpools(namespace), type=AgentPool, on_change=cache.pool_changed),
                Informer(
                    client, path=paths.pods(namespace), type=Pod, on_change=cache.pod_changed, label_selector=POOL_LABEL
                ),
                Informer(
                    client,
                    path=paths.controller_revisions(namespace),
                    type=ControllerRevision,
                    on_change=cache.revision_changed,
                    label_selector=POOL_LABEL,
                ),
                Informer(client, path=paths.resource_quotas(namespace), type=ResourceQuota, on_change=quota_changed),
            ]

    @property
    def synced(self) -> bool:
        return all(informer.synced.is_set() for informer in self._informers)

    async def wait_synced(self) -> None:
        for informer in self._informers:
            await informer.synced.wait()

    async def refresh(self) -> None:
        """Return once the caches show all that was there at the call, however far the watches lag; tries until then."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(_refresh(informer))

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())


async def _refresh(informer: _Informer) -> None:
    delay = RETRY_FIRST
    while True:
        try:
            return await informer.refresh()
        except ApiError as error:
            log.warning("caches cannot be refreshed", error=str(error), retry_in_seconds=delay)
        await asyncio.sleep(delay)
        delay = min(RETRY_MAX, delay * 2)
