"""Leader election on one Lease: whoever holds it leads, and stops leading before another can start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from app.core.lease import Lease, Sight, released, step
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.meta import NamespacedName
from app.settings import LeaderElection

log = structlog.get_logger()


class LeaderElector:
    """Contends for the Lease ``settings.lease``; makes it if it is missing and we may."""

    def __init__(self, client: Client, *, namespace: str, identity: str, settings: LeaderElection) -> None:
        self._client = client
        self._key = NamespacedName(namespace, settings.lease)
        self._identity = identity
        self._settings = settings
        self._lease = Lease()
        self._sight: Sight | None = None
        self._renewed = 0.0
        self.leading = False

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Contend until cancelled; while the Lease is ours, run ``lead``, which is cancelled when it is lost.

        What ``lead`` raises ends this too, once the Lease is released.
        """
        while True:
            await self._acquire()
            term = asyncio.ensure_future(_coroutine(lead))
            try:
                await self._hold(term)
            finally:
                term.cancel()
                await asyncio.wait({term})
                self.leading = False
                await asyncio.shield(self._release())
            if not term.cancelled():
                term.result()

    async def _acquire(self) -> None:
        while not await self._try():
            await asyncio.sleep(self._settings.retry_period)
        self.leading = True
        log.info("lease acquired", lease=str(self._key), identity=self._identity)

    async def _hold(self, term: asyncio.Future[None]) -> None:
        """Renew until the term ends by itself or the Lease is lost; a renewal has until the deadline to succeed."""
        loop = asyncio.get_running_loop()
        while not term.done():
            await asyncio.wait({term}, timeout=self._settings.retry_period)
            if term.done():
                return
            if await self._try():
                continue
            if self._lease.spec.holder_identity not in (self._identity, None):
                log.error("lease taken", lease=str(self._key), holder=self._lease.spec.holder_identity)
                return
            if loop.time() >= self._renewed + self._settings.renew_deadline:
                log.error("lease not renewed in time", lease=str(self._key), seconds=self._settings.renew_deadline)
                return

    async def _try(self) -> bool:
        """One attempt to get or renew the Lease, bounded in time so that a dead connection does not hold us up."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        limit = self._settings.renew_deadline
        if self.leading:
            limit = max(0.1, self._renewed + self._settings.renew_deadline - now)
        try:
            async with asyncio.timeout(limit):
                held = await self._step(now)
        except (ApiError, TimeoutError) as error:
            log.warning("lease not read or written", lease=str(self._key), error=str(error) or "no answer in time")
            return False
        if held:
            self._renewed = now
        return held

    async def _step(self, now: float) -> bool:
        self._lease = await self._read()
        decided = step(
            self._lease,
            self._sight,
            identity=self._identity,
            duration=self._settings.lease_duration,
            now=now,
            wall=_wall(),
        )
        self._sight = decided.sight
        if decided.write is None:
            return False
        if decided.action == "renew" and not self.leading:
            log.info("lease is ours from before", lease=str(self._key))
        return await self._write(decided.write)

    async def _read(self) -> Lease:
        try:
            return msgspec.json.decode(await self._client.get(paths.lease(self._key)), type=Lease)
        except ApiError as error:
            if error.not_found:
                return Lease()
            raise

    async def _write(self, spec: dict[str, Any]) -> bool:
        """Replace what was read, or make it; False if somebody was faster."""
        version = self._lease.metadata.resource_version
        try:
            if version:
                # A merge patch with the version keeps what else the Lease carries (helm's labels).
                body: dict[str, Any] = {"metadata": {"resourceVersion": version}, "spec": spec}
                answer = await self._client.merge_patch(paths.lease(self._key), body)
            else:
                meta = {"name": self._key.name, "namespace": self._key.namespace}
                body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
                answer = await self._client.create(paths.leases(self._key.namespace), body)
        except ApiError as error:
            if error.conflict or error.already_exists:
                return False
            raise
        self._lease = msgspec.json.decode(answer, type=Lease)
        return True

    async def _release(self) -> None:
        """Best effort: a Lease that cannot be released expires."""
        if self._lease.spec.holder_identity != self._identity:
            return
        try:
            async with asyncio.timeout(self._settings.retry_period):
                if await self._write(released(self._lease.spec, wall=_wall())):
                    log.info("lease released", lease=str(self._key))
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released", lease=str(self._key), error=str(error) or "no answer in time")


async def _coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
