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
from app.model.meta import NamespacedName, OnlyMetadata
from app.settings import LeaderElection

LONGEST_MANAGER = 128
"""Characters of a field manager's name."""

log = structlog.get_logger()


class LeaderElector:
    """Contends for the Lease ``settings.lease``, and makes it if it is missing: Argo CD by default applies no Lease, so
    that the chart cannot have one. What we make goes with the release's Secret ``owner``, if that is there."""

    def __init__(
        self, client: Client, *, namespace: str, identity: str, settings: LeaderElection, owner: str | None = None
    ) -> None:
        self._client = client
        self._key = NamespacedName(namespace, settings.lease)
        self._owner = NamespacedName(namespace, owner) if owner else None
        self._identity = identity
        self._settings = settings
        self._lease = Lease()
        self._sight: Sight | None = None
        self._renewed = 0.0
        self.leading = False

    def holds(self) -> bool:
        """Whether we lead by the clock too. A process that was stopped wakes up in the midst of what it was doing, and
        some of that runs before it is told that its term is over."""
        return self.leading and self._left() > 0

    def _left(self) -> float:
        """Seconds within which the Lease must be renewed."""
        return self._renewed + self._settings.renew_deadline - asyncio.get_running_loop().time()

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Contend until cancelled; while the Lease is ours, run ``lead``, which is cancelled when it is lost.

        What ``lead`` raises ends this too, once the Lease is released.
        """
        while True:
            await self._acquire()
            await self._serve_term(lead)
            await asyncio.sleep(self._settings.retry_period)

    async def _serve_term(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Lead until that ends or the Lease is lost; it is kept until what ``lead`` has to clear up is done."""
        term = asyncio.create_task(_coroutine(lead), name="lead")
        keeping = asyncio.create_task(self._keep(), name="keep the lease")
        try:
            await asyncio.wait({term, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            term.cancel()
            await self._finish(term, keeping)
        if not term.cancelled():
            term.result()

    async def _finish(self, term: asyncio.Task[None], keeping: asyncio.Task[None]) -> None:
        """Release the Lease once the term has ended; if we are not let wait for that, the Lease has to run out."""
        try:
            await self._await_end(term)
        finally:
            keeping.cancel()
            self.leading = False
        await asyncio.wait({keeping})
        await self._release()

    async def _await_end(self, term: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while not term.done():
            left = self._renewed + self._settings.lease_duration - loop.time()
            await asyncio.wait({term}, timeout=left if left > 0 else None)
            if not term.done() and loop.time() >= self._renewed + self._settings.lease_duration:
                log.error("the lease has run out, and what was done under it has not ended", lease=str(self._key))

    async def _acquire(self) -> None:
        log.info("waiting for the lease", lease=str(self._key), identity=self._identity)
        while True:
            if await self._try(self._settings.renew_deadline):
                break
            await asyncio.sleep(self._settings.retry_period)
        self.leading = True
        log.info("lease acquired", lease=str(self._key), identity=self._identity)

    async def _keep(self) -> None:
        """Renew the Lease until it is lost: taken by another, or not renewed by the deadline."""
        while True:
            await asyncio.sleep(min(self._settings.retry_period, max(0.0, self._left())))
            left = self._left()
            if left <= 0:
                log.error("lease not renewed in time", lease=str(self._key), seconds=self._settings.renew_deadline)
                return
            if not await self._try(left) and self._lease.spec.holder_identity not in (self._identity, None, ""):
                log.error("lease taken", lease=str(self._key), holder=self._lease.spec.holder_identity)
                return

    async def _try(self, limit: float) -> bool:
        """One attempt to get or renew the Lease, so bounded that another fits in before the deadline."""
        asked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(limit, self._settings.renew_deadline / 2)):
                held = await self._step()
        except (ApiError, TimeoutError, ValueError) as error:
            log.warning("lease not read or written", lease=str(self._key), error=str(error) or "no answer in time")
            return False
        if held:
            self._renewed = asked
        return held

    async def _step(self) -> bool:
        self._lease = await self._read()
        decided = step(
            self._lease,
            self._sight,
            identity=self._identity,
            duration=self._settings.lease_duration,
            now=asyncio.get_running_loop().time(),
            wall=_wall(),
        )
        self._sight = decided.sight
        return decided.write is not None and await self._write(decided.write)

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
                answer = await self._create(spec)
        except ApiError as error:
            if error.conflict or error.already_exists:
                self._lease = await self._read()  # if it is another's now, we must know at once
                return False
            raise
        self._lease = msgspec.json.decode(answer, type=Lease)
        return True

    async def _create(self, spec: dict[str, Any]) -> bytes:
        """By an apply that takes nothing from others: RBAC can bind it to the name, and of two replicas that find no
        Lease one gets a conflict."""
        meta = {"name": self._key.name, "namespace": self._key.namespace, "ownerReferences": await self._owners()}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        manager = self._identity[:LONGEST_MANAGER]
        return await self._client.apply(paths.lease(self._key), body, manager=manager, force=False)

    async def _owners(self) -> list[dict[str, str]]:
        if self._owner is None:
            return []
        try:
            found = msgspec.json.decode(await self._client.get(paths.secret(self._owner)), type=OnlyMetadata).metadata
        except ApiError as error:
            if error.not_found:
                return []
            raise
        return [{"apiVersion": "v1", "kind": "Secret", "name": found.name, "uid": found.uid}]

    async def _release(self) -> None:
        """Best effort: a Lease that cannot be released expires."""
        if self._lease.spec.holder_identity != self._identity:
            return
        try:
            async with asyncio.timeout(self._settings.retry_period):
                if await self._write(released(self._lease.spec, wall=_wall())):
                    log.info("lease released", lease=str(self._key))
        except (ApiError, TimeoutError, ValueError) as error:
            log.warning("lease not released", lease=str(self._key), error=str(error) or "no answer in time")


async def _coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
