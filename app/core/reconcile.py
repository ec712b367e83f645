"""One pool, from what is observed to a plan of API calls. Nothing here acts; the same picture gives the same plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from app.core import backoff as backoffs
from app.core import status as statuses
from app.core.agents import PoolAgents
from app.core.backoff import Backoff
from app.core.scaling import Decision, Pool, Removal, decide
from app.core.workers import LIVE, State, Worker, classify
from app.model.agentpool import AgentPool, FieldError, PoolSpec
from app.model.meta import FINALIZER
from app.model.pod import Pod

CLOSING_GRACE = 30.0
"""Seconds that sessions of a deleted pool have to end by themselves before their pods are deleted."""


class Memory(msgspec.Struct, frozen=True):
    """What one reconcile of a pool leaves for the next. Lost at a restart, on purpose: the cluster holds the rest.

    ``inherited``: uids of pods whose containers ran already when we began to lead (``started_at``) and that have not
    joined since. ``joined``: uids of agents that had joined by then, so that a new one is told from an old one.
    """

    started_at: float
    inherited: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
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
    backoff: Backoff
    now: float
    wall: float


class Event(msgspec.Struct, frozen=True):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Plan(msgspec.Struct, frozen=True):
    """What is to be done, in this order: finalizer, status when it must come first, then all the rest at once."""

    memory: Memory
    backoff: Backoff
    finalizers: tuple[str, ...] | None = None
    """The whole list to write; None leaves it."""
    create: int = 0
    create_reason: str = ""
    removals: tuple[Removal, ...] = ()
    adopt: tuple[Pod, ...] = ()
    close: bool = False
    """The pool is being deleted: its sessions are to be ended."""
    status: Mapping[str, Any] | None = None
    """The whole status to write; None when it would not change."""
    status_first: bool = False
    events: tuple[Event, ...] = ()
    failure: str = ""
    """A worker that ended before it joined: to be backed off from as a failed creation is."""
    next_at: float | None = None


def remember(pods: Sequence[Pod], agents: PoolAgents, *, now: float) -> Memory:
    """The memory of a pool that this process sees for the first time."""
    running = (pod.metadata for pod in pods if pod.status.phase == "Running")
    return Memory(started_at=now, inherited=frozenset(meta.uid for meta in running if meta.name not in agents.agents))


def reconcile(seen: Observed, memory: Memory) -> Plan:
    """The plan for one pool."""
    if seen.pool.metadata.deletion_timestamp:
        return _close(seen, memory)
    if not isinstance(seen.spec, PoolSpec):
        return _refuse(seen, memory, seen.spec)
    if FINALIZER not in seen.pool.metadata.finalizers:
        finalizers = (*seen.pool.metadata.finalizers, FINALIZER)
        return Plan(memory=memory, backoff=seen.backoff, finalizers=finalizers)
    return _scale(seen, memory, seen.spec)


def _scale(seen: Observed, memory: Memory, spec: PoolSpec) -> Plan:
    workers = _workers(seen, memory, default_slots=spec.autoscaler.default_slots_per_agent)
    backoff = _refresh(seen, memory, workers)
    pool = Pool(
        limits=spec.autoscaler,
        workers=workers,
        asked=len(seen.creating),
        pending_sessions=seen.agents.pending_sessions,
        started_at=memory.started_at,
        decay_since=memory.decay_since,
        backoff=backoff,
    )
    decision = decide(pool, now=seen.now)
    crash = next(
        (r.worker for r in decision.removals if r.worker.state is State.FINISHED and not r.worker.joined), None
    )
    status = statuses.of_pool(seen.pool, pool, backoff, wall=seen.wall)
    first = statuses.is_first(seen.pool)
    return Plan(
        memory=_next_memory(seen, memory, workers, decision),
        backoff=backoff,
        create=decision.create,
        create_reason=decision.create_reason,
        removals=decision.removals,
        adopt=tuple(pod for pod in seen.orphans if _may_adopt(pod, spec)),
        status=status if status != seen.pool.status else None,
        status_first=first,
        events=_events(decision),
        failure=f"pod {crash.name} ended before it joined{f' ({crash.reason})' if crash.reason else ''}"
        if crash
        else "",
        next_at=decision.next_at,
    )


def _workers(seen: Observed, memory: Memory, *, default_slots: int) -> list[Worker]:
    return classify(
        seen.pods,
        seen.agents.agents,
        default_slots=default_slots,
        inherited=memory.inherited,
        inherited_since=memory.started_at,
        deleting=seen.deleting,
    )


def _refresh(seen: Observed, memory: Memory, workers: Sequence[Worker]) -> Backoff:
    """Rule 7: a new agent, 90 s of quiet or a new spec give creation another chance."""
    if backoffs.expired(seen.backoff, seen.now):
        return backoffs.NONE
    if seen.backoff.failures and any(worker.joined and worker.uid not in memory.joined for worker in workers):
        return backoffs.NONE
    if memory.generation and memory.generation != seen.pool.metadata.generation:
        return backoffs.retry_now(seen.backoff)
    return seen.backoff


def _next_memory(seen: Observed, memory: Memory, workers: Sequence[Worker], decision: Decision) -> Memory:
    joined = frozenset(worker.uid for worker in workers if worker.joined)
    present = frozenset(worker.uid for worker in workers)
    return msgspec.structs.replace(
        memory,
        inherited=(memory.inherited & present) - joined,
        joined=joined,
        decay_since=decision.decay_since,
        generation=seen.pool.metadata.generation,
    )


def _may_adopt(pod: Pod, spec: PoolSpec) -> bool:
    labels = pod.metadata.labels or {}
    wanted = spec.template.get("metadata", {}).get("labels", {})
    return not pod.metadata.deletion_timestamp and all(labels.get(key) == value for key, value in wanted.items())


def _events(decision: Decision) -> tuple[Event, ...]:
    """One event a reason; what creates or deletes is written when it has happened, by who does it."""
    dead = [r for r in decision.removals if r.worker.state in (State.FINISHED, State.UNKNOWN, State.LOST)]
    return tuple(Event("Warning", "AgentLost", f"Agent {r.worker.name} is replaced: {r.reason}") for r in dead)


def _refuse(seen: Observed, memory: Memory, errors: Sequence[FieldError]) -> Plan:
    """A pool that got in past the webhook: said in its status; its agents are left alone."""
    status = statuses.of_refused(seen.pool, errors, wall=seen.wall)
    changed = status != seen.pool.status
    text = "; ".join(str(error) for error in errors)
    events = (Event("Warning", "InvalidSpec", f"The pool is not scaled until its spec is mended: {text}"),)
    return Plan(
        memory=memory,
        backoff=seen.backoff,
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
        return Plan(memory=closing, backoff=seen.backoff, close=True, finalizers=held if mine else None)
    over = seen.now >= since + CLOSING_GRACE
    workers = _workers(seen, memory, default_slots=1)
    removable = [w for w in workers if w.state in LIVE | {State.FINISHED} and (over or w.state is not State.RUNNING)]
    return Plan(
        memory=closing,
        backoff=seen.backoff,
        close=True,
        removals=tuple(Removal(worker, "the pool is being deleted") for worker in removable),
        next_at=None if over else since + CLOSING_GRACE,
    )
