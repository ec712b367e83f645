"""What is written about a pool itself: status, finalizers, templates that it may go back to; and adoptions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from app.controller.parts import Parts, PoolState, Subject
from app.core.podspec import owner_reference, pod_name, revision
from app.core.reconcile import Plan
from app.kube import paths
from app.kube.errors import ApiError
from app.model.agentpool import AgentPool
from app.model.meta import API_VERSION, KIND, NamespacedName
from app.model.pod import Pod

STATUS_INTERVAL = 1.0
"""Seconds between two writes of one pool's status, but for the first of a generation."""
ADOPTION_INTERVAL = 5.0
"""Seconds between two attempts to adopt a pod."""
REVISION_INTERVAL = 10.0
"""Seconds between two attempts to keep one template, should the first not be seen."""

log = structlog.get_logger()


class Writes:
    """Single calls, beside the next reconcile but for the first status and the finalizers."""

    def __init__(self, parts: Parts) -> None:
        self._client = parts.client
        self._queue = parts.queue

    async def finalizers(self, subject: Subject, finalizers: tuple[str, ...]) -> None:
        """The watch brings the pool back with them; a conflict means that it is on its way."""
        body = {"metadata": {"resourceVersion": subject.pool.metadata.resource_version, "finalizers": finalizers}}
        try:
            await self._client.merge_patch(paths.agentpool(subject.key), body)
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise

    def offer_status(self, subject: Subject, status: Mapping[str, Any]) -> None:
        """Write it beside the next reconcile, at most one at a time and one a second."""
        state, now = subject.state, asyncio.get_running_loop().time()
        if state.status_in_flight:
            return
        if now < state.status_at + STATUS_INTERVAL:
            self._queue.add_at(subject.key, state.status_at + STATUS_INTERVAL)
            return
        self._queue.spawn(self.status(subject, status), name=f"status of {subject.key}")

    async def status(self, subject: Subject, status: Mapping[str, Any]) -> None:
        """Write it now."""
        key, pool, state = subject.key, subject.pool, subject.state
        state.status_in_flight = True
        state.status_at = asyncio.get_running_loop().time()
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": pool.metadata.uid},
            "status": status,
        }
        try:
            await self._client.apply(paths.agentpool(key, "status"), body)
            state.status_sent = (pool.metadata.resource_version, status)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                log.warning("status not written", pool=str(key), error=str(error))
        finally:
            state.status_in_flight = False
            self._queue.add_at(key, state.status_at + STATUS_INTERVAL)

    def revisions(self, subject: Subject, plan: Plan) -> None:
        """Keep the template that agents are made from, and drop those that nothing needs."""
        key, pool, state = subject.key, subject.pool, subject.state
        now = asyncio.get_running_loop().time()
        asked, at = state.revision_asked
        if plan.version and plan.keep_revision and (plan.version.target != asked or now >= at + REVISION_INTERVAL):
            state.revision_asked = plan.version.target, now
            body = revision(pool, plan.version.template, plan.version.target)
            self._queue.spawn(self._keep_revision(key, body), name=f"revision of {key}")
        for template_hash in plan.drop_revisions:
            self._queue.spawn(self._drop_revision(key, template_hash), name=f"revision of {key}")

    def adopt(self, subject: Subject, pod: Pod) -> None:
        """Become the controller of a pod that nobody controls; asked once for each version of the pod."""
        meta, adopting = pod.metadata, subject.state.adopting
        if adopting.get(meta.uid) != meta.resource_version:
            adopting[meta.uid] = meta.resource_version
            self._queue.spawn(self._adopt(subject, pod), name=f"adopt {meta.key}")

    async def _keep_revision(self, key: NamespacedName, body: Mapping[str, Any]) -> None:
        try:
            await self._client.create(paths.controller_revisions(key.namespace), body)
        except ApiError as error:
            if not error.already_exists:
                log.warning("template not kept", pool=str(key), error=str(error))

    async def _drop_revision(self, key: NamespacedName, template_hash: str) -> None:
        name = NamespacedName(key.namespace, pod_name(key.name, template_hash))
        try:
            await self._client.delete(paths.controller_revision(name))
        except ApiError as error:
            if not error.not_found:
                log.warning("template not dropped", pool=str(key), error=str(error))

    async def _adopt(self, subject: Subject, pod: Pod) -> None:
        meta, owners = pod.metadata, [owner_reference(subject.pool)]
        body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}}
        try:
            await self._client.merge_patch(paths.pod(meta.key), body)
        except ApiError as error:
            log.warning("pod not adopted", pool=str(subject.key), pod=meta.name, error=str(error))
            if not error.conflict:
                if subject.state.adopting.get(meta.uid) == meta.resource_version:
                    del subject.state.adopting[meta.uid]
                self._queue.add_at(subject.key, asyncio.get_running_loop().time() + ADOPTION_INTERVAL)


def with_sent_status(pool: AgentPool, state: PoolState) -> AgentPool:
    """The pool with the status that we sent, until the watch has shown a later pool than that was made from."""
    if state.status_sent and state.status_sent[0] == pool.metadata.resource_version:
        return msgspec.structs.replace(pool, status=state.status_sent[1])
    return pool
