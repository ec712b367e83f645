"""The ConfigMap that worker pods mount at /run/velda, made in each pool's namespace that lacks it, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from app.controller.cache import PoolCache
from app.core.proofs import CA_KEY
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import MANAGED_BY_LABEL, MANAGER, NamespacedName, ObjectMeta

CHECK_INTERVAL = 60.0
KEY = "velda.yaml"

log = structlog.get_logger()


class ManagedFields(msgspec.Struct, frozen=True, rename="camel"):
    """Who wrote which fields, as the API server keeps it."""

    manager: str = ""
    fields: dict[str, Any] = msgspec.field(default_factory=dict, name="fieldsV1")


class _Meta(ObjectMeta, frozen=True, rename="camel"):
    managed_fields: tuple[ManagedFields, ...] = ()


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    data: dict[str, str] | None = None

    @property
    def ours(self) -> bool:
        """We made it, and nobody else has written its data since: a user who applies one of that name takes it over."""
        others = (entry for entry in self.metadata.managed_fields if entry.manager != MANAGER)
        return self.metadata.label(MANAGED_BY_LABEL) == MANAGER and not any(
            "f:data" in entry.fields for entry in others
        )


class ConfigMaps:
    """Makes and keeps only what is ours; a ConfigMap that a user made, or has written to since, is never touched.

    ``content`` is the text of velda.yaml; None turns all of this off. ``bundle`` has the CAs (PEM) that agents verify
    us by, which are kept beside it; empty where they need none, and while there is none.
    """

    def __init__(
        self,
        client: Client,
        cache: PoolCache,
        *,
        name: str,
        content: str | None,
        bundle: Callable[[], bytes] = bytes,
    ) -> None:
        self.name = name
        self._client = client
        self._cache = cache
        self._content = content
        self._bundle = bundle
        self._checked: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again at every namespace that has a pool, each minute, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            self._checked.clear()
            for namespace in sorted({key.namespace for key in self._cache.pool_keys()}):
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
            if found and found.ours:
                path = paths.config_map(NamespacedName(namespace, self.name))
                await self._client.delete(path, uid=found.metadata.uid)
        except ApiError as error:
            if not error.not_found:
                log.warning("ConfigMap not removed", namespace=namespace, config_map=self.name, error=str(error))

    async def _check(self, namespace: str, content: str) -> None:
        try:
            found = await self._read(namespace)
            data = {KEY: content, **({CA_KEY: bundle.decode()} if (bundle := self._bundle()) else {})}
            if found is None or (found.ours and found.data != data):
                await self._write(namespace, data)
        except ApiError as error:
            log.warning("ConfigMap for agents not written", namespace=namespace, config_map=self.name, error=str(error))

    async def _read(self, namespace: str) -> ConfigMap | None:
        try:
            body = await self._client.get(paths.config_map(NamespacedName(namespace, self.name)))
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return msgspec.json.decode(body, type=ConfigMap)

    async def _write(self, namespace: str, data: Mapping[str, str]) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}},
            "data": data,
        }
        await self._client.apply(paths.config_map(NamespacedName(namespace, self.name)), body)
        log.info("ConfigMap for agents written", namespace=namespace, config_map=self.name)
