"""One pool, from what is observed to a plan of API calls. Nothing here acts; the same picture gives the same plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from app.core import breaker as breakers
from app.core import hints
from app.core import rollout as rollouts
from app.core import status as statuses
from app.core.agents import PoolAgents
from app.core.breaker import Breaker
from app.core.diagnosis import Problem
from app.core.hints import Hint
from app.core.news import Event, news
from app.core.rollout import Version
from app.core.scaling import Decision, Pool, Removal, decide
from app.core.warmth import Seen, Warmth, join_seconds, restore, warm
from app.core.workers import LIVE, WAITING, State, Wait, Worker, ailing, classify, track
from app.model.agentpool import AgentPool, FieldError, PoolSpec
from app.model.meta import FINALIZER
from app.model.pod import Pod

CLOSING_GRACE = 30.0
"""Seconds that sessions of a deleted pool have to end by themselves before their pods are deleted."""


class Memory(msgspec.Struct, frozen=True):
    """What one reconcile of a pool leaves for the next. Lost at a restart, on purpose: the cluster holds the rest.

    ``inherited``: uids of pods whose containers ran already when we began to lead (``started_at``) or adopted them,
    each with when that was, and that have not joined since. ``joined``: uids of agents that had joined by then, so that
    a new one is told from an old one.
    ``held`` and ``stuck``: uids of pods whose trouble has been told already.
    """

    started_at: float
    inherited: Mapping[str, float] = {}
    joined: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    stuck: frozenset[str] = frozenset()
    waits: Mapping[str, Wait] = {}
    warmth: Warmth | None = None
    requested_sessions: int = 0
    told: Mapping[str, Any] | None = None
    """The status of the last look: it may not be written yet."""
    decay_since: float | None = None
    closing_since: float | None = None
    generation: int = 0


class Observed(msgspec.Struct, frozen=True):
    """All that a reconcile reads. ``now`` is monotonic, ``wall`` epoch seconds; ``pods`` are those the pool owns."""

    pool: AgentPool
    spec: PoolSpec | Sequence[FieldError]
    """The pool's spec if it is good, or else what is wrong with it."""
    pods: Sequence[Pod]
    orphans: Sequence[Pod]
    """Pods with the pool's label that nobody controls."""
    agents: PoolAgents
    creating: Collection[str]
    deleting: Collection[str]
    breaker: Breaker
    now: float
    wall: float
    chance: float
    """A random number in [0, 1), drawn for this reconcile."""
    revisions: Mapping[str, dict[str, Any]] = {}
    """Templates of this pool's versions that the cluster keeps, by hash."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be done, in this order: finalizer, status when it must come first, then all the rest at once."""

    memory: Memory
    breaker: Breaker
    finalizers: tuple[str, ...] | None = None
    """The whole list to write; None leaves it."""
    version: Version | None = None
    """What new agents are made from."""
    create: int = 0
    create_reason: str = ""
    create_urgent: int = 0
    """So many of them have a session that waits."""
    removals: tuple[Removal, ...] = ()
    hints: tuple[Hint, ...] = ()
    adopt: tuple[Pod, ...] = ()
    keep_revision: bool = False
    """The version's template is to be kept in the cluster, should it be needed again."""
    drop_revisions: tuple[str, ...] = ()
    close: bool = False
    """The pool is being deleted: its sessions are to be ended."""
    status: Mapping[str, Any] | None = None
    """The whole status to write; None when it would not change."""
    status_first: bool = False
    events: tuple[Event, ...] = ()
    failure: Problem | None = None
    """Why a worker never became an agent; the breaker knows it already."""
    ailing: str = ""
    """What keeps an agent that is on its way."""
    join_seconds: Sequence[float] = ()
    """Of each agent that has just joined: how long it was waited for."""
    next_at: float | None = None


def remember(pool: AgentPool, pods: Sequence[Pod], agents: PoolAgents, *, now: float) -> Memory:
    """The memory of a pool that this process sees for the first time."""
    running = (pod.metadata for pod in pods if pod.status.phase == "Running")
    return Memory(
        started_at=now,
        inherited={meta.uid: now for meta in running if meta.name not in agents.agents},
        warmth=restore(statuses.warmth(pool), now=now),
    )


def reconcile(seen: Observed, memory: Memory) -> Plan:
    """The plan for one pool."""
    if seen.pool.metadata.deletion_timestamp:
        return _close(seen, memory)
    if not isinstance(seen.spec, PoolSpec):
        return _refuse(seen, memory, seen.spec)
    if FINALIZER not in seen.pool.metadata.finalizers:
        finalizers = (*seen.pool.metadata.finalizers, FINALIZER)
        return Plan(memory=memory, breaker=seen.breaker, finalizers=finalizers)
    return _scale(seen, memory, seen.spec)


def _scale(seen: Observed, memory: Memory, spec: PoolSpec) -> Plan:
    progress = statuses.progress(seen.pool)
    version = rollouts.choose(spec, progress, seen.revisions, wall=seen.wall)
    waited, waits = memory.waits, track(memory.waits, seen.pods, seen.agents.agents, now=seen.now)
    memory = msgspec.structs.replace(memory, waits=waits)
    limits = spec.autoscaler
    workers = _workers(
        seen, memory, default_slots=limits.default_slots_per_agent, join_timeout=limits.join_timeout_second
    )
    demand = _demand(seen, memory, workers, waited)
    warmth = warm(spec, memory.warmth, demand, now=seen.now, wall=seen.wall)
    breaker = _refresh(seen, memory, workers, version)
    if failure := _failure(workers, memory, version):
        breaker = breakers.failed(
            breaker, failure, template_hash=version.target, now=seen.now, wall=seen.wall, jitter=seen.chance
        )
    pool = Pool(
        limits=warmth.limits,
        workers=workers,
        asked=len(seen.creating),
        pending_sessions=seen.agents.pending_sessions,
        started_at=memory.started_at,
        decay_since=memory.decay_since,
        breaker=breaker,
        template_hash=version.target,
        rolling=spec.rollout.strategy == "RollingUpdate",
    )
    version = rollouts.advance(version, pool, spec.rollout, seen.revisions, wall=seen.wall)
    if pool.template_hash != version.target:
        pool = msgspec.structs.replace(pool, template_hash=version.target)
    decision = decide(pool, now=seen.now)
    decision = rollouts.roll(pool, decision, spec.rollout, proved=version.proved, now=seen.now)
    status = statuses.of_pool(
        seen.pool, pool, version, decision, warmth, rollout=spec.rollout, now=seen.now, wall=seen.wall
    )
    told = statuses.mapping(seen.pool.status) if memory.told is None else memory.told
    adopt = tuple(pod for pod in seen.orphans if _may_adopt(pod, spec))
    return Plan(
        memory=_next_memory(seen, memory, workers, adopt=adopt, decision=decision, warmth=warmth, status=status),
        breaker=pool.breaker,
        version=version,
        create=decision.create,
        create_reason=decision.reason,
        create_urgent=min(decision.create, seen.agents.pending_sessions),
        removals=decision.removals,
        hints=_hints(seen, version, workers),
        adopt=adopt,
        keep_revision=version.target not in seen.revisions,
        drop_revisions=_unused_revisions(seen, version, spec, workers),
        status=status if status != seen.pool.status else None,
        status_first=statuses.is_first(seen.pool),
        events=(*_events(workers, decision, memory, version, progress), *news(told, status)),
        failure=failure,
        ailing=ailing(workers),
        join_seconds=demand.joins,
        next_at=_next_at(seen, pool, version, spec=spec, decision=decision, warmth=warmth),
    )


def _next_at(
    seen: Observed, pool: Pool, version: Version, *, spec: PoolSpec, decision: Decision, warmth: Warmth
) -> float | None:
    """When to look again though nothing happens: for the rules, or because what is wrong is forgotten or takes long."""
    breaker, deadline = pool.breaker, spec.rollout.progress_deadline_second
    later = [circuit.forgotten_at for circuit in breaker.circuits]
    if breaker.open_since is not None:
        later += [seen.now + version.started + deadline - seen.wall, breaker.open_since + deadline]
    times = [decision.next_at, warmth.next_at, *(time for time in later if time > seen.now)]
    return min((time for time in times if time is not None), default=None)


def _demand(seen: Observed, memory: Memory, workers: Sequence[Worker], waited: Mapping[str, Wait]) -> Seen:
    """Requests since the last look; fewer than then were ever made when the broker has started anew."""
    arrivals = seen.agents.requested_sessions - memory.requested_sessions
    return Seen(arrivals=max(0, arrivals), joins=join_seconds(workers, waited, now=seen.now))


def _workers(seen: Observed, memory: Memory, *, default_slots: int, join_timeout: float) -> list[Worker]:
    return classify(
        seen.pods,
        seen.agents.agents,
        default_slots=default_slots,
        join_timeout=join_timeout,
        inherited=memory.inherited,
        deleting=seen.deleting,
        waits=memory.waits,
        now=seen.now,
    )


def _failure(workers: Sequence[Worker], memory: Memory, version: Version) -> Problem | None:
    """Of the version at hand, a worker that has just turned out not to become an agent; one stands for all."""
    for worker in workers:
        if worker.template_hash != version.target or worker.joined or worker.uid in memory.joined:
            continue
        if worker.state in (State.BROKEN, State.FINISHED):
            return worker.problem
        if worker.state is State.HELD and worker.uid not in memory.held:
            return worker.problem
    return None


def _refresh(seen: Observed, memory: Memory, workers: Sequence[Worker], version: Version) -> Breaker:
    """Rule 7: a new agent, 90 s of quiet, a new template or a new spec give creation another chance."""
    breaker = breakers.refreshed(
        seen.breaker,
        template_hash=version.target,
        joined={worker.template_hash for worker in workers if worker.joined and worker.uid not in memory.joined},
        probing=any(worker.state in WAITING and worker.template_hash == version.target for worker in workers),
        now=seen.now,
    )
    if memory.generation and memory.generation != seen.pool.metadata.generation:
        return breakers.retry_now(breaker)
    return breaker


def _next_memory(
    seen: Observed,
    memory: Memory,
    workers: Sequence[Worker],
    *,
    adopt: Sequence[Pod],
    decision: Decision,
    warmth: Warmth,
    status: Mapping[str, Any],
) -> Memory:
    joined = frozenset(worker.uid for worker in workers if worker.joined)
    adopted = {pod.metadata.uid: seen.now for pod in adopt if pod.status.phase == "Running"}
    inherited = adopted | dict(memory.inherited)
    present = adopted.keys() | {worker.uid for worker in workers}
    return msgspec.structs.replace(
        memory,
        inherited={uid: since for uid, since in inherited.items() if uid in present and uid not in joined},
        joined=joined,
        held=frozenset(worker.uid for worker in workers if worker.state is State.HELD),
        stuck=frozenset(worker.uid for worker in workers if worker.stuck),
        told=status,
        decay_since=decision.decay_since,
        warmth=warmth,
        requested_sessions=seen.agents.requested_sessions,
        generation=seen.pool.metadata.generation,
    )


def _unused_revisions(seen: Observed, version: Version, spec: PoolSpec, workers: Sequence[Worker]) -> tuple[str, ...]:
    """Versions that nothing runs and nothing may go back to."""
    used = {version.target, version.stable, spec.template_hash} | {worker.template_hash for worker in workers}
    return tuple(sorted(seen.revisions.keys() - used))


def _hints(seen: Observed, version: Version, workers: Sequence[Worker]) -> tuple[Hint, ...]:
    def chosen_by(template_hash: str) -> frozenset[str]:
        return hints.chosen(seen.revisions.get(template_hash, version.template))

    return hints.due(workers, chosen_by)


def _may_adopt(pod: Pod, spec: PoolSpec) -> bool:
    labels = pod.metadata.labels or {}
    wanted = spec.template.get("metadata", {}).get("labels", {})
    return not pod.metadata.deletion_timestamp and all(labels.get(key) == value for key, value in wanted.items())


def _events(
    workers: Sequence[Worker], decision: Decision, memory: Memory, version: Version, before: rollouts.Progress
) -> tuple[Event, ...]:
    """What is told once. Creations and deletions are told when they have happened, by who carries them out."""
    events = [
        Event("Warning", "AgentLost", f"Agent {removal.worker.name} is replaced: {removal.reason}")
        for removal in decision.removals
        if removal.worker.state in (State.FINISHED, State.BROKEN, State.UNKNOWN, State.LOST)
    ]
    events += [
        Event("Warning", "AgentHeld", f"Agent {worker.name} cannot start yet: {worker.problem}")
        for worker in workers
        if worker.state is State.HELD and worker.uid not in memory.held
    ]
    events += [
        Event("Warning", "AgentStuck", f"Pod {worker.name} does not go away: look at its node and its finalizers")
        for worker in workers
        if worker.stuck and worker.uid not in memory.stuck
    ]
    if version.failed and version.failed != before.failed:
        text = f"Template {version.failed} is given up, agents are made from {version.stable} again"
        events.append(Event("Warning", "RolledBack", text))
    return tuple(events)


def _refuse(seen: Observed, memory: Memory, errors: Sequence[FieldError]) -> Plan:
    """A pool that got in past the webhook: said in its status; its agents are left alone."""
    status = statuses.of_refused(seen.pool, errors, wall=seen.wall)
    changed = status != seen.pool.status
    text = "; ".join(str(error) for error in errors)
    events = (Event("Warning", "InvalidSpec", f"The pool is not scaled until its spec is mended: {text}"),)
    return Plan(
        memory=memory,
        breaker=seen.breaker,
        status=status if changed else None,
        status_first=True,
        events=events if changed else (),
    )


def _close(seen: Observed, memory: Memory) -> Plan:
    """Rule 9: sessions are asked to end; pods go as they become free or when grace is over; the finalizer last."""
    held = tuple(name for name in seen.pool.metadata.finalizers if name != FINALIZER)
    since = seen.now if memory.closing_since is None else memory.closing_since
    closing = msgspec.structs.replace(memory, closing_since=since)
    if not seen.pods and not seen.creating:
        mine = FINALIZER in seen.pool.metadata.finalizers
        return Plan(memory=closing, breaker=seen.breaker, close=True, finalizers=held if mine else None)
    over = seen.now >= since + CLOSING_GRACE
    workers = _workers(seen, memory, default_slots=1, join_timeout=float("inf"))
    text = f"Sessions have {CLOSING_GRACE:.0f} s to end, then their agents are deleted all the same"
    events = (Event("Normal", "Closing", text),) if memory.closing_since is None else ()
    removable = [w for w in workers if w.state in LIVE | {State.FINISHED} and (over or w.state is not State.RUNNING)]
    return Plan(
        memory=closing,
        breaker=seen.breaker,
        close=True,
        removals=tuple(Removal(worker, "the pool is being deleted") for worker in removable),
        events=events,
        next_at=None if over else since + CLOSING_GRACE,
    )
