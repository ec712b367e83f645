"""The label on the leader's pod, by which the broker's Service finds it."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName, OnlyMetadata

ROLE_LABEL = "velda.io/role"
LEADER = "leader"
RETRY = 2.0
DROP_TIMEOUT = 2.0
"""Seconds that the end of a term may wait for the label to go: the next leader takes it away if we cannot."""

log = structlog.get_logger()


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[OnlyMetadata, ...] = ()


class LeaderLabel:
    """Set when a term begins, removed when it ends; does nothing outside a cluster (``pod`` None)."""

    def __init__(self, client: Client, *, namespace: str, pod: str | None) -> None:
        self._client = client
        self._namespace = namespace
        self._pod = pod

    async def take(self) -> None:
        """Label our pod, and no other: a leader that died without a word may have left its label behind.

        Tried until it is done or refused, for agents find no broker without it.
        """
        if self._pod is None:
            return
        while True:
            try:
                await self._take(self._pod)
                return
            except ApiError as error:
                log.error("leader label not set", pod=self._pod, namespace=self._namespace, error=str(error))
                if error.status in (400, 403, 422):
                    return
            await asyncio.sleep(RETRY)

    async def drop(self) -> None:
        if self._pod is None:
            return
        try:
            async with asyncio.timeout(DROP_TIMEOUT):
                await self._set(self._pod, None)
        except (ApiError, TimeoutError) as error:
            log.warning("leader label not removed", pod=self._pod, error=str(error) or "no answer in time")

    async def _take(self, ours: str) -> None:
        await self._set(ours, LEADER)
        query = {"labelSelector": f"{ROLE_LABEL}={LEADER}"}
        found = msgspec.json.decode(await self._client.get(paths.pods(self._namespace), params=query), type=_Pods)
        for item in found.items:
            if item.metadata.name != ours:
                await self._set(item.metadata.name, None)

    async def _set(self, pod: str, value: str | None) -> None:
        try:
            body = {"metadata": {"labels": {ROLE_LABEL: value}}}
            await self._client.merge_patch(paths.pod(NamespacedName(self._namespace, pod)), body)
        except ApiError as error:
            if not error.not_found:
                raise
