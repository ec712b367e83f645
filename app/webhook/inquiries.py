"""What the API server says of an AgentPool's author, pod and namespace.

What speaks for a pool is believed for seconds, so that a hundred pools that are applied at once cost what one does.
What speaks against it is asked again each time: it may just have been mended.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.core.injection import POOL_FLAG
from app.core.podspec import pod_name, render
from app.core.proofs import Proof
from app.kube import paths
from app.kube.access import review_access
from app.kube.answers import Answers
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool, PoolSpec
from app.model.quota import ResourceQuota
from app.webhook.rehearsal import BUDGET, Verdict, not_rehearsed, rehearse

SECONDS = 5.0
"""For which an answer is believed. Pods are judged again when they are created, whatever was said of the template."""
ACCESS_BUDGET = 4.0
"""Seconds; the API server waits 5 s for our whole answer."""
TEMPLATES = 256
"""Templates whose verdicts are kept: each may be large."""


class _Quotas(msgspec.Struct, frozen=True):
    items: tuple[ResourceQuota, ...] = ()


class Inquiries:
    """Equal questions at one time are one. ``clock`` gives the age of answers in seconds."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._access = Answers[tuple[bool, str]](lambda answer: SECONDS if answer[0] else 0, clock=clock)
        self._verdicts = Answers[Verdict](lambda verdict: SECONDS if verdict.pod else 0, clock=clock, kept=TEMPLATES)
        self._quotas = Answers[Sequence[ResourceQuota]](lambda _: SECONDS, clock=clock)

    async def may_create_pods(self, user: Mapping[str, Any], namespace: str) -> tuple[bool, str]:
        """Whether the user (a UserInfo) may, and the authorizer's reason. Raises ApiError or TimeoutError."""
        key = hashlib.sha256(msgspec.json.encode(user, order="sorted")).digest(), namespace
        async with asyncio.timeout(ACCESS_BUDGET):
            return await self._access.get(
                key,
                lambda: review_access(
                    self._client, user=user, verb="create", group="", resource="pods", namespace=namespace
                ),
            )

    async def rehearse(self, pool: AgentPool, spec: PoolSpec, *, config_map: str, proof: Proof | None) -> Verdict:
        """What would be said of the pool's pods, whose names and owner make no difference. Raises for nothing."""

        async def ask() -> Verdict:
            name = pod_name(pool.metadata.name, secrets.token_hex(4))
            return await rehearse(self._client, render(pool, spec, name=name, config_map=config_map, proof=proof))

        try:
            async with asyncio.timeout(BUDGET):
                return await self._verdicts.get((pool.metadata.namespace, config_map, _alike(pool, spec)), ask)
        except (ApiError, TimeoutError) as error:
            return not_rehearsed(str(error) or f"no answer within {BUDGET:.0f} s")

    async def quotas(self, namespace: str) -> Sequence[ResourceQuota]:
        """None when they cannot be read: they are only for a hint."""

        async def ask() -> Sequence[ResourceQuota]:
            body = await self._client.get(paths.resource_quotas(namespace))
            return msgspec.json.decode(body, type=_Quotas).items

        try:
            async with asyncio.timeout(BUDGET):
                return await self._quotas.get(namespace, ask)
        except (ApiError, TimeoutError):
            return ()


def _alike(pool: AgentPool, spec: PoolSpec) -> bytes:
    """The same for templates that differ in the pool's name alone, which the mutating webhook may have put there."""
    template = msgspec.json.encode(spec.template, order="sorted")
    own, anyone = (msgspec.json.encode(f"{POOL_FLAG}={name}") for name in (pool.metadata.name, ""))
    return hashlib.sha256(template.replace(own, anyone)).digest()
