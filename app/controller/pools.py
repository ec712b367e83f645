"""The controller's shell around the pure core: reads the caches, asks core/reconcile for a plan, carries it out."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from app.controller.actuator import Actuator, problem_of
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.queue import KeyQueue
from app.core import breaker as breakers
from app.core.agents import AgentDirectory
from app.core.diagnosis import Problem
from app.core.expectations import Expectations
from app.core.podspec import owner_reference, pod_name, render, revision
from app.core.reconcile import Memory, Observed, Plan, reconcile, remember
from app.core.scaling import Removal
from app.core.validation import validate
from app.core.workers import State
from app.kube import paths
from app.kube.client import Client
from app.kube.errors import ApiError
from app.kube.events import EventRecorder
from app.model.agentpool import AgentPool, FieldError, PoolSpec
from app.model.meta import API_VERSION, CONFIG_MAP_ANNOTATION, KIND, NamespacedName
from app.model.pod import Pod
from app.obs import metrics

STATUS_INTERVAL = 1.0
"""Seconds between two writes of one pool's status, but for the first of a generation."""
REVISION_INTERVAL = 10.0
"""Seconds between two attempts to keep a template, should the first not be seen."""

log = structlog.get_logger()


class _Pool:
    """What this process remembers of one AgentPool while it leads."""

    def __init__(self, uid: str, memory: Memory) -> None:
        self.uid = uid
        self.memory = memory
        self.breaker = breakers.CLOSED
        self.expectations = Expectations()
        self.spec: PoolSpec | Sequence[FieldError] = ()
        self.spec_generation = -1
        self.revision_asked = float("-inf")
        self.status_at = float("-inf")
        self.status_in_flight = False
        self.status_sent: tuple[str, Mapping[str, Any]] | None = None
        """The last status sent, with the resourceVersion of the pool that it was made from."""


class PoolController:
    """Reconciles every pool in the cache while this process leads; a new one is made for each term of leadership."""

    def __init__(
        self,
        *,
        client: Client,
        cache: PoolCache,
        agents: AgentDirectory,
        events: EventRecorder,
        config_maps: ConfigMaps,
    ) -> None:
        self._client = client
        self._cache = cache
        self._agents = agents
        self._events = events
        self._config_maps = config_maps
        self._actuator = Actuator(client)
        self._pools: dict[NamespacedName, _Pool] = {}
        self._queue: KeyQueue[NamespacedName] = KeyQueue(self._reconcile)

    async def run(self) -> None:
        """Reconcile until cancelled. The caches must be warm."""
        with self._cache.listening(pool=self._queue.add, pod=self._pod_changed):
            running = asyncio.create_task(self._queue.run(), name="pool queue")
            try:
                await asyncio.sleep(0)
                for key in self._cache.pool_keys():
                    self._queue.add(key)
                await running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    def wake(self, key: NamespacedName) -> None:
        """Something about the pool's agents or sessions changed."""
        self._queue.add(key)

    def quota_changed(self, namespace: str) -> None:
        """Pools that were refused may be taken now."""
        for key in self._cache.keys_in(namespace):
            state = self._pools.get(key)
            if state and state.breaker.circuits:
                state.breaker = breakers.retry_now(state.breaker)
                self._queue.add(key)

    def _pod_changed(self, key: NamespacedName, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None:
            return
        meta, gone = pod.metadata, new is None
        if state := self._pools.get(key):
            state.expectations.observe(meta.name, meta.uid, gone=gone or meta.deletion_timestamp is not None)
        if gone:
            self._agents.forget(key, meta.name)
        self._queue.add(key)

    # Reading.

    async def _reconcile(self, key: NamespacedName) -> None:
        pool = self._cache.pool(key)
        if pool is None:
            if self._pools.pop(key, None):
                self._agents.forget_pool(key)
                await self._config_maps.pool_gone(key.namespace)
            return
        try:
            with metrics.RECONCILE_SECONDS.time():
                state, plan = self._plan(key, pool)
            if state.breaker.problem and not plan.breaker.problem:
                self._cache.report_error(key, "", None)
            state.memory, state.breaker = plan.memory, plan.breaker
            await self._apply(key, pool, state, plan)
        except Exception:
            metrics.RECONCILES.labels("error").inc()
            raise
        metrics.RECONCILES.labels("ok").inc()

    def _plan(self, key: NamespacedName, pool: AgentPool) -> tuple[_Pool, Plan]:
        now = asyncio.get_running_loop().time()
        labelled = self._cache.labelled_pods(key).values()
        owned = [pod for pod in labelled if pod.metadata.controller_uid() == pool.metadata.uid]
        agents = self._agents.pool_agents(key)
        state = self._pools.get(key)
        if state is None or state.uid != pool.metadata.uid:
            if state:
                self._agents.forget_pool(key)
                agents = self._agents.pool_agents(key)
            state = self._pools[key] = _Pool(pool.metadata.uid, remember(pool, owned, agents, now=now))
        if state.spec_generation != pool.metadata.generation:
            state.spec, state.spec_generation = validate(key.name, pool.spec), pool.metadata.generation
        seen = Observed(
            pool=_with_sent_status(pool, state),
            spec=state.spec,
            pods=owned,
            orphans=[pod for pod in labelled if not pod.metadata.controller_uid()],
            agents=agents,
            creating=state.expectations.creating(now=now),
            deleting=state.expectations.deleting(now=now),
            breaker=state.breaker,
            now=now,
            wall=time.time(),
            chance=random.random(),  # noqa: S311  spreads retries; no secret
            revisions=self._cache.revisions(key, owner=pool.metadata.uid),
        )
        return state, reconcile(seen, state.memory)

    # Acting.

    async def _apply(self, key: NamespacedName, pool: AgentPool, state: _Pool, plan: Plan) -> None:
        if plan.close:
            self._agents.close_pool(key)
        if plan.finalizers is not None:
            await self._write_finalizers(key, pool, plan.finalizers)
            return
        if plan.status is not None and plan.status_first:
            await self._write_status(key, pool, state, plan.status)
        for event in plan.events:
            self._events.record(pool, event.type, event.reason, event.message)
        if plan.failure:
            self._tell_failure(key, pool, state, plan.failure)
        self._start_revisions(key, pool, state, plan)
        self._start_removals(key, pool, state, plan.removals)
        self._start_creations(key, pool, state, plan)
        for pod in plan.adopt:
            self._queue.spawn(self._adopt(pool, pod), name=f"adopt {pod.metadata.key}")
        if plan.status is not None and not plan.status_first:
            self._offer_status(key, pool, state, plan.status)
        if plan.next_at is not None:
            self._queue.add_at(key, plan.next_at)

    def _start_creations(self, key: NamespacedName, pool: AgentPool, state: _Pool, plan: Plan) -> None:
        if not plan.create or not plan.version or not isinstance(state.spec, PoolSpec):
            return
        now = asyncio.get_running_loop().time()
        config_map = pool.metadata.annotation(CONFIG_MAP_ANNOTATION) or self._config_maps.name
        names = [pod_name(key.name, secrets.token_hex(4)) for _ in range(plan.create)]
        spec = msgspec.structs.replace(state.spec, template=plan.version.template, template_hash=plan.version.target)
        pods = [render(pool, spec, name=name, config_map=config_map) for name in names]
        for name in names:
            state.expectations.expect_creation(name, now=now)
        log.info("creating agents", pool=str(key), count=plan.create, reason=plan.create_reason)
        self._queue.spawn(self._create(key, pool, state, pods, plan.create_reason), name=f"create for {key}")

    async def _create(
        self, key: NamespacedName, pool: AgentPool, state: _Pool, pods: Sequence[dict[str, Any]], reason: str
    ) -> None:
        await self._config_maps.ensure(key.namespace)
        results = await asyncio.gather(*(self._create_one(key, pool, state, pod) for pod in pods))
        if made := sum(results):
            self._events.record(pool, "Normal", "Created", f"Created {_agents(made)}: {reason}")

    async def _create_one(self, key: NamespacedName, pool: AgentPool, state: _Pool, pod: dict[str, Any]) -> bool:
        def failed(error: ApiError) -> None:
            self._failed(key, pool, state, problem_of(error))

        error = await self._actuator.create(pod, doubtful=failed)
        if error is None:
            if state.breaker.circuits:
                state.breaker = breakers.created(state.breaker)
                self._queue.add(key)
            return True
        state.expectations.creation_failed(pod["metadata"]["name"])
        failed(error)
        self._queue.add(key)
        return False

    def _failed(self, key: NamespacedName, pool: AgentPool, state: _Pool, problem: Problem) -> None:
        now = asyncio.get_running_loop().time()
        news = state.breaker.blocked_until(now) is None
        state.breaker = breakers.failed(
            state.breaker,
            problem,
            template_hash=state.breaker.template_hash,
            now=now,
            wall=time.time(),
            jitter=random.random(),  # noqa: S311  spreads retries; no secret
        )
        if news:
            self._tell_failure(key, pool, state, problem)

    def _tell_failure(self, key: NamespacedName, pool: AgentPool, state: _Pool, problem: Problem) -> None:
        now = asyncio.get_running_loop().time()
        wait = max(0.0, (state.breaker.blocked_until(now) or now) - now)
        self._cache.report_error(key, str(problem), time.time())
        log.warning(
            "no agent", pool=str(key), cause=problem.cause.value, error=str(problem), retry_in_seconds=round(wait, 1)
        )
        self._events.record(pool, "Warning", "CreateFailed", f"{problem} (next try in {wait:.0f} s)")

    def _start_revisions(self, key: NamespacedName, pool: AgentPool, state: _Pool, plan: Plan) -> None:
        now = asyncio.get_running_loop().time()
        if plan.version and plan.keep_revision and now >= state.revision_asked + REVISION_INTERVAL:
            state.revision_asked = now
            body = revision(pool, plan.version.template, plan.version.target)
            self._queue.spawn(self._keep_revision(key, body), name=f"revision of {key}")
        for template_hash in plan.drop_revisions:
            self._queue.spawn(self._drop_revision(key, template_hash), name=f"revision of {key}")

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

    def _start_removals(self, key: NamespacedName, pool: AgentPool, state: _Pool, removals: Sequence[Removal]) -> None:
        now = asyncio.get_running_loop().time()
        for removal in removals:
            worker = removal.worker
            if not self._agents.drain(key, worker.name) and worker.state in (State.IDLE, State.PENDING):
                continue  # a session was dispatched to it in the same instant
            state.expectations.expect_deletion(worker.uid, now=now)
            self._queue.spawn(self._remove(key, pool, state, removal), name=f"delete {key.namespace}/{worker.name}")

    async def _remove(self, key: NamespacedName, pool: AgentPool, state: _Pool, removal: Removal) -> None:
        worker = removal.worker
        log.info("deleting agent", pool=str(key), pod=worker.name, state=worker.state.value, reason=removal.reason)
        error = await self._actuator.delete(NamespacedName(key.namespace, worker.name), uid=worker.uid)
        if error is None:
            self._events.record(pool, "Normal", "Deleted", f"Deleted agent {worker.name}: {removal.reason}")
            return
        self._agents.undrain(key, worker.name)
        state.expectations.deletion_failed(worker.uid)
        log.error("agent not deleted", pool=str(key), pod=worker.name, error=str(error))
        self._events.record(pool, "Warning", "DeleteFailed", f"Agent {worker.name} not deleted: {error.message}")
        self._queue.add_at(key, asyncio.get_running_loop().time() + breakers.FIRST_DELAY)

    async def _adopt(self, pool: AgentPool, pod: Pod) -> None:
        meta, owners = pod.metadata, [owner_reference(pool)]
        body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}}
        try:
            await self._client.merge_patch(paths.pod(meta.key), body)
        except ApiError as error:
            log.warning("pod not adopted", pool=str(pool.metadata.key), pod=meta.name, error=str(error))

    async def _write_finalizers(self, key: NamespacedName, pool: AgentPool, finalizers: tuple[str, ...]) -> None:
        """The watch brings the pool back with them; a conflict means that it is on its way."""
        body = {"metadata": {"resourceVersion": pool.metadata.resource_version, "finalizers": finalizers}}
        try:
            await self._client.merge_patch(paths.agentpool(key), body)
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise

    def _offer_status(self, key: NamespacedName, pool: AgentPool, state: _Pool, status: Mapping[str, Any]) -> None:
        """Write it beside the next reconcile, at most one at a time and one a second."""
        now = asyncio.get_running_loop().time()
        if state.status_in_flight:
            return
        if now < state.status_at + STATUS_INTERVAL:
            self._queue.add_at(key, state.status_at + STATUS_INTERVAL)
            return
        self._queue.spawn(self._write_status(key, pool, state, status), name=f"status of {key}")

    async def _write_status(
        self, key: NamespacedName, pool: AgentPool, state: _Pool, status: Mapping[str, Any]
    ) -> None:
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


def _with_sent_status(pool: AgentPool, state: _Pool) -> AgentPool:
    """The pool with the status that we sent, until the watch has shown a later pool than that was made from."""
    if state.status_sent and state.status_sent[0] == pool.metadata.resource_version:
        return msgspec.structs.replace(pool, status=state.status_sent[1])
    return pool


def _agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"
