"""The ConfigMap that worker pods mount at /run/velda, made in each pool's namespace that lacks it, and kept."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from app.controller.cache import PoolCache
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import MANAGED_BY_LABEL, MANAGER, NamespacedName, ObjectMeta

CHECK_INTERVAL = 60.0
KEY = "velda.yaml"

log = structlog.get_logger()


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


class ConfigMaps:
    """Makes and mends only what carries our managed-by label; a ConfigMap that a user made is never touched.

    ``content`` is the text of velda.yaml; None turns all of this off.
    """

    def __init__(self, client: Client, cache: PoolCache, *, name: str, content: str | None) -> None:
        self.name = name
        self._client = client
        self._cache = cache
        self._content = content
        self._checked: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again at every namespace that has a pool, each minute, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            self._checked.clear()
            for namespace in {key.namespace for key in self._cache.pool_keys()}:
                await self.ensure(namespace)

    async def ensure(self, namespace: str) -> None:
        """Return once the ConfigMap was looked at since the last check; creators that come together look once."""
        if self._content is None:
            return
        check = self._checked.get(namespace)
        if check is None:
            check = self._checked[namespace] = asyncio.create_task(self._check(namespace, self._content))
        await asyncio.shield(check)

    async def pool_gone(self, namespace: str) -> None:
        """Remove ours with the namespace's last pool."""
        if self._content is None or self._cache.keys_in(namespace):
            return
        self._checked.pop(namespace, None)
        try:
            found = await self._read(namespace)
            if found and _ours(found):
                path = paths.config_map(NamespacedName(namespace, self.name))
                await self._client.delete(path, uid=found.metadata.uid)
        except ApiError as error:
            if not error.not_found:
                log.warning("ConfigMap not removed", namespace=namespace, config_map=self.name, error=str(error))

    async def _check(self, namespace: str, content: str) -> None:
        try:
            found = await self._read(namespace)
            if found is None or (_ours(found) and (found.data or {}).get(KEY) != content):
                await self._write(namespace, content)
        except ApiError as error:
            log.warning("ConfigMap for agents not written", namespace=namespace, config_map=self.name, error=str(error))

    async def _read(self, namespace: str) -> _ConfigMap | None:
        try:
            body = await self._client.get(paths.config_map(NamespacedName(namespace, self.name)))
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return msgspec.json.decode(body, type=_ConfigMap)

    async def _write(self, namespace: str, content: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}},
            "data": {KEY: content},
        }
        await self._client.apply(paths.config_map(NamespacedName(namespace, self.name)), body)
        log.info("ConfigMap for agents written", namespace=namespace, config_map=self.name)


def _ours(found: _ConfigMap) -> bool:
    return found.metadata.label(MANAGED_BY_LABEL) == MANAGER
