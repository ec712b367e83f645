"""The label on the leader's pod, by which the broker's Service finds it."""

from __future__ import annotations

import msgspec
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName, ObjectMeta

ROLE_LABEL = "velda.io/role"
LEADER = "leader"

log = structlog.get_logger()


class _Item(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[_Item, ...] = ()


class LeaderLabel:
    """Set when a term begins, removed when it ends; does nothing outside a cluster (``pod`` None)."""

    def __init__(self, client: Client, *, namespace: str, pod: str | None) -> None:
        self._client = client
        self._namespace = namespace
        self._pod = pod

    async def take(self) -> None:
        """Label our pod, and no other: a leader that died without a word may have left its label behind."""
        if self._pod is None:
            return
        query = {"labelSelector": f"{ROLE_LABEL}={LEADER}"}
        found = msgspec.json.decode(await self._client.get(paths.pods(self._namespace), params=query), type=_Pods)
        for item in found.items:
            if item.metadata.name != self._pod:
                await self._set(item.metadata.name, None)
        await self._set(self._pod, LEADER)

    async def drop(self) -> None:
        if self._pod is not None:
            await self._set(self._pod, None)

    async def _set(self, pod: str, value: str | None) -> None:
        try:
            body = {"metadata": {"labels": {ROLE_LABEL: value}}}
            await self._client.merge_patch(paths.pod(NamespacedName(self._namespace, pod)), body)
        except ApiError as error:
            if not error.not_found:
                log.error("leader label not set", pod=pod, namespace=self._namespace, value=value, error=str(error))
