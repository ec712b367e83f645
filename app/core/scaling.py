"""The autoscaling rules: how many workers to ask for and which to remove, from what is known at one instant.

Idleness (minIdle, maxIdle) is counted in slots, size (minReplicas, maxReplicas) in agents.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.backoff import Backoff
from app.core.selection import removal_order
from app.core.workers import LIVE, State, Worker
from app.model.agentpool import Autoscaler

REJOIN_GRACE = 15.0
"""Seconds after a start for which creations wait for unknown agents to join again; removals wait until all is known."""


class Pool(msgspec.Struct, frozen=True):
    """All that the rules read. ``asked`` counts creations not yet seen as pods; times are monotonic seconds."""

    limits: Autoscaler
    workers: Sequence[Worker]
    asked: int = 0
    pending_sessions: int = 0
    started_at: float = 0.0
    decay_since: float | None = None
    backoff: Backoff = Backoff()

    @property
    def size(self) -> int:
        """Agents that exist or were asked for, terminating and finished ones left out."""
        return self.asked + sum(worker.state in LIVE for worker in self.workers)

    @property
    def idle(self) -> int:
        """Slots free now or once pending agents join, less the sessions that wait; may be negative."""
        asked = self.asked * self.limits.default_slots_per_agent
        return asked + sum(worker.free for worker in self.workers) - self.pending_sessions

    @property
    def max_idle(self) -> int:
        """maxIdle raised so that a pool can settle: one agent more than minIdle needs may not be one too many."""
        limits = self.limits
        return max(limits.max_idle, limits.min_idle + limits.default_slots_per_agent - 1)

    def count(self, state: State) -> int:
        return sum(worker.state is state for worker in self.workers)


class Removal(msgspec.Struct, frozen=True):
    worker: Worker
    reason: str
    """In words, for the log and the event."""


class Decision(msgspec.Struct, frozen=True):
    """``next_at`` (monotonic seconds) is when the rules want to look again though nothing happened; None for never."""

    create: int = 0
    create_reason: str = ""
    removals: tuple[Removal, ...] = ()
    decay_since: float | None = None
    next_at: float | None = None


def decide(pool: Pool, *, now: float) -> Decision:
    """Apply the rules once. The same picture at the same time gives the same decision."""
    dead, dead_at = _dead(pool, now)
    if any(worker.state is State.UNKNOWN for worker in pool.workers):
        # Rule 1: know before you act.
        grown = _up(pool, now) if now >= pool.started_at + REJOIN_GRACE else Decision()
        wait = pool.started_at + REJOIN_GRACE if now < pool.started_at + REJOIN_GRACE else None
        return _merge(grown, removals=dead, next_at=_earliest(grown.next_at, dead_at, wait))
    if dead:
        # The next picture, without them and with the back-off that they may cause, says what they leave to be done.
        return Decision(removals=dead, next_at=dead_at, decay_since=pool.decay_since)
    grown = _up(pool, now)
    shrunk = _down(pool, now) if not grown.create else Decision()
    return _merge(
        grown,
        removals=shrunk.removals,
        decay_since=shrunk.decay_since,
        next_at=_earliest(grown.next_at, shrunk.next_at, dead_at),
    )


def _merge(
    grown: Decision,
    *,
    removals: tuple[Removal, ...],
    next_at: float | None,
    decay_since: float | None = None,
) -> Decision:
    return Decision(
        create=grown.create,
        create_reason=grown.create_reason,
        removals=removals,
        decay_since=decay_since,
        next_at=next_at,
    )


def _up(pool: Pool, now: float) -> Decision:
    """Rule 2: all that are needed are asked for at once. Terminating pods hold their place under maxReplicas."""
    limits = pool.limits
    for_idle = -(-(limits.min_idle - pool.idle) // limits.default_slots_per_agent)
    for_size = limits.min_replicas - pool.size
    room = limits.max_replicas - pool.size - pool.count(State.TERMINATING)
    wanted = min(max(for_idle, for_size), room)
    if wanted <= 0:
        return Decision()
    if pool.backoff.blocks(now):
        return Decision(next_at=pool.backoff.until)
    if pool.backoff.allowance:
        wanted = min(wanted, max(0, pool.backoff.allowance - pool.asked))
    if for_idle >= for_size:
        waiting = f" ({pool.pending_sessions} sessions wait)" if pool.pending_sessions else ""
        reason = f"{pool.idle} idle slots are below minIdle {limits.min_idle}{waiting}"
    else:
        reason = f"{pool.size} agents are below minReplicas {limits.min_replicas}"
    return Decision(create=wanted, create_reason=reason)


def _down(pool: Pool, now: float) -> Decision:
    """Rules 3 and 4, and the maximum: idle agents above it go at once, whatever minIdle says."""
    limits, size, idle = pool.limits, pool.size, pool.idle
    removals: list[Removal] = []
    candidates = removal_order(pool.workers)
    while candidates and size > limits.max_replicas:
        worker = candidates.pop(0)
        removals.append(Removal(worker, f"{size} agents are above maxReplicas {limits.max_replicas}"))
        size, idle = size - 1, idle - worker.free
    for worker in list(candidates):
        if idle <= pool.max_idle or size <= limits.min_replicas:
            break
        if idle - worker.free >= limits.min_idle:
            candidates.remove(worker)
            removals.append(Removal(worker, f"{idle} idle slots are above maxIdle {pool.max_idle}"))
            size, idle = size - 1, idle - worker.free
    slow = next((worker for worker in candidates if idle - worker.free >= limits.min_idle), None)
    if slow is None or size <= limits.min_replicas:
        return Decision(removals=tuple(removals))
    since = now if pool.decay_since is None else pool.decay_since
    if now >= since + limits.idle_decay_second:
        text = f"{idle} idle slots above minIdle {limits.min_idle} for {limits.idle_decay_second} s"
        removals.append(Removal(slow, text))
        since = now
    return Decision(removals=tuple(removals), decay_since=since, next_at=since + limits.idle_decay_second)


def _dead(pool: Pool, now: float) -> tuple[tuple[Removal, ...], float | None]:
    """Rule 6, and pods that ended: those to delete now, and when the next unknown or lost one is due."""
    removals, due = [], None
    patience = pool.limits.kill_unknown_after_second
    for worker in pool.workers:
        if worker.state is State.FINISHED:
            removals.append(Removal(worker, f"the pod ended{f' ({worker.reason})' if worker.reason else ''}"))
        elif worker.state in (State.UNKNOWN, State.LOST):
            if now >= worker.since + patience:
                removals.append(Removal(worker, f"{worker.state} for {patience} s (killUnknownAfterSecond)"))
            else:
                due = _earliest(due, worker.since + patience)
    return tuple(removals), due


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)
