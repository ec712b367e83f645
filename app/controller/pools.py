"""The controller's shell around the pure core: reads the caches, asks core/reconcile for a plan, carries it out."""

from __future__ import annotations

import asyncio
import random
import secrets
import time

import structlog

from app.controller.actuator import Actuator
from app.controller.cache import PoolCache
from app.controller.config_maps import ConfigMaps
from app.controller.creations import Creations
from app.controller.hints import Hints
from app.controller.parts import Parts, PoolState, Subject
from app.controller.queue import KeyQueue
from app.controller.removals import Removals
from app.controller.writes import Writes, with_sent_status
from app.core import breaker as breakers
from app.core.agents import AgentDirectory
from app.core.budget import Crowd
from app.core.proofs import Proof
from app.core.reconcile import Observed, Plan, reconcile, remember
from app.core.status import mapping
from app.core.trace import AgentCreated, LimitsSet, Recorder, nobody
from app.core.validation import validate
from app.core.workers import alike
from app.kube.client import Client
from app.kube.events import EventRecorder
from app.model.agentpool import AgentPool
from app.model.meta import NamespacedName
from app.model.pod import Pod
from app.obs import metrics, spans
from app.obs.pools import POOLS

log = structlog.get_logger()

FILLING = 0.5
"""Seconds that news of a pod may wait while more are on their way, unless it goes: each alone changes no decision."""


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
        proof: Proof | None = None,
        record: Recorder = nobody,
    ) -> None:
        self._cache = cache
        self._agents = agents
        self._events = events
        self._config_maps = config_maps
        self._actuator = Actuator(client)
        self._pools: dict[NamespacedName, PoolState] = {}
        self._queue: KeyQueue[NamespacedName] = KeyQueue(self._reconcile)
        self._crowd = Crowd()
        self._parts = parts = Parts(
            client=client,
            cache=cache,
            agents=agents,
            events=events,
            config_maps=config_maps,
            proof=proof,
            actuator=self._actuator,
            queue=self._queue,
            record=record,
        )
        self._writes = Writes(parts)
        self._creations = Creations(parts)
        self._removals = Removals(parts)
        self._hints = Hints(parts)

    async def run(self) -> None:
        """Reconcile until cancelled. The caches must be warm."""
        with self._cache.listening(pool=self._queue.add, pod=self._pod_changed):
            running = asyncio.create_task(self._queue.run(), name="pool queue")
            try:
                await asyncio.sleep(0)
                for key in self._cache.pool_keys():
                    for name in self._cache.labelled_pods(key):
                        self._parts.trace(key, AgentCreated, name)
                    self._queue.add(key)
                await running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await self._actuator.close()
                POOLS.clear()

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
        if pod is None or (old and new and alike(old, new)):
            return
        meta, gone = pod.metadata, new is None
        going = gone or meta.deletion_timestamp is not None
        filling = False
        self._actuator.seen(meta.key)
        if state := self._pools.get(key):
            state.expectations.observe(meta.name, meta.uid, gone=going)
            filling = state.expectations.filling
            if gone:
                state.hinted.sent.pop(meta.uid, None)
        if gone:
            self._agents.forget(key, meta.name)
        if filling and not going:
            self._queue.add_at(key, asyncio.get_running_loop().time() + FILLING)
        else:
            self._queue.add(key)

    # Reading.

    async def _reconcile(self, key: NamespacedName) -> None:
        # On each line of this reconcile, and of what it starts.
        structlog.contextvars.bind_contextvars(
            pool=str(key), namespace=key.namespace, reconcile_id=secrets.token_hex(4)
        )
        pool = self._cache.pool(key)
        if pool is None:
            if self._pools.pop(key, None):
                POOLS.forget(key)
                self._agents.forget_pool(key)
                await self._config_maps.pool_gone(key.namespace)
            return
        try:
            with spans.span("reconcile", {"velda.pool": key}, root=True) as span:
                subject, plan = self._decide(key, pool)
                span.set_attributes({"velda.create": plan.create, "velda.remove": len(plan.removals)})
                await self._apply(subject, plan)
        except Exception:
            metrics.RECONCILES.labels("error").inc()
            raise
        metrics.RECONCILES.labels("ok").inc()

    def _decide(self, key: NamespacedName, pool: AgentPool) -> tuple[Subject, Plan]:
        """What is to be done, remembered as if it were."""
        with metrics.RECONCILE_SECONDS.time():
            state, plan = self._plan(key, pool)
        if not plan.breaker.problem and (state.breaker.problem or state.ailing != plan.ailing):
            self._cache.report_error(key, plan.ailing, time.time() if plan.ailing else None)
        state.ailing = plan.ailing
        state.memory, state.breaker = plan.memory, plan.breaker
        if warmth := plan.memory.warmth:
            self._parts.record(key, LimitsSet(time.time(), warmth.limits))
        subject = Subject(key, pool, state)
        _measure(subject, plan)
        return subject, plan

    def _plan(self, key: NamespacedName, pool: AgentPool) -> tuple[PoolState, Plan]:
        loop = asyncio.get_running_loop()
        now, uid = loop.time(), pool.metadata.uid
        owned, orphans = [], []
        for pod in self._cache.labelled_pods(key).values():
            owner = pod.metadata.controller_uid()
            if owner == uid:
                owned.append(pod)
            elif not owner:
                orphans.append(pod)
        agents = self._agents.pool_agents(key)
        state = self._pools.get(key)
        if state is None or state.uid != uid:
            if state:
                self._agents.forget_pool(key)
                agents = self._agents.pool_agents(key)
            POOLS.begin(key)
            state = self._pools[key] = PoolState(uid, remember(pool, owned, agents, now=now))
        if state.spec_generation != pool.metadata.generation:
            state.spec, state.spec_generation = validate(key.name, pool.spec), pool.metadata.generation
        seen = Observed(
            pool=with_sent_status(pool, state),
            spec=state.spec,
            pods=owned,
            orphans=orphans,
            agents=agents,
            creating=state.expectations.creating(now=now),
            deleting=state.expectations.deleting(now=now),
            breaker=state.breaker,
            now=now,
            wall=time.time(),
            chance=random.random(),  # noqa: S311  spreads retries; no secret
            revisions=self._cache.revisions(key, owner=uid),
        )
        plan = reconcile(seen, state.memory)
        done = loop.time()
        crowd = self._crowd.joined_by(key, now=done)
        self._queue.rest(key, state.budget.spend(done - now, now=done, crowd=crowd))
        return state, plan

    # Acting.

    async def _apply(self, subject: Subject, plan: Plan) -> None:
        if plan.close:
            self._agents.close_pool(subject.key)
            subject.state.closing = True
            self._actuator.withdraw(subject.key)
        if plan.finalizers is not None:
            await self._writes.finalizers(subject, plan.finalizers)
            return
        if plan.status is not None and plan.status_first:
            await self._writes.status(subject, plan.status)
            if self._is_other(subject):
                self._queue.add(subject.key)
                return
        for event in plan.events:
            if event.type == "Warning":
                log.warning(event.message, pool=str(subject.key), reason=event.reason)
            self._events.record(subject.pool, event.type, event.reason, event.message)
        if plan.failure:
            self._creations.tell_failure(subject, plan.failure)
        self._writes.revisions(subject, plan)
        self._removals.start(subject, plan.removals)
        self._creations.start(subject, plan)
        self._hints.offer(subject, plan.hints)
        for pod in plan.adopt:
            self._writes.adopt(subject, pod)
        if plan.status is not None and not plan.status_first:
            self._writes.offer_status(subject, plan.status)
        for due in (plan.next_at, subject.state.expectations.next_expiry):
            if due is not None:
                self._queue.add_at(subject.key, due)

    def _is_other(self, subject: Subject) -> bool:
        """The pool has been edited, deleted or replaced since the plan was made."""
        was, pool = subject.pool.metadata, self._cache.pool(subject.key)
        return pool is None or (pool.metadata.uid, pool.metadata.generation, pool.metadata.deletion_timestamp) != (
            was.uid,
            was.generation,
            was.deletion_timestamp,
        )


def _measure(subject: Subject, plan: Plan) -> None:
    """What the plan says of the pool; without a word of its status, that is as it was."""
    figures = POOLS.of(subject.key)
    status = with_sent_status(subject.pool, subject.state).status if plan.status is None else plan.status
    figures.status = mapping(status)
    if plan.memory.warmth:
        figures.limits = plan.memory.warmth.limits
    for seconds in plan.join_seconds:
        metrics.TIME_TO_IDLE.observe(seconds)
