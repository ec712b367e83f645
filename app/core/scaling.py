"""The autoscaling rules: how many workers to ask for and which to remove, from what is known at one instant.

Idleness (minIdle, maxIdle) is counted in slots, size (minReplicas, maxReplicas) in agents.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from app.core.breaker import CLOSED, Breaker
from app.core.selection import removal_order
from app.core.tally import NOBODY, Tally, tally
from app.core.words import agents, sessions_wait
from app.core.workers import JOINED, LIVE, WAITING, State, Worker
from app.model.agentpool import Autoscaler

REJOIN_GRACE = 15.0
"""Seconds after a start for which creations wait for unknown agents to join again; removals wait until all is known."""


class Rule(StrEnum):
    """What bound a decision."""

    SETTLED = "settled"
    MIN_IDLE = "minIdle"
    MIN_REPLICAS = "minReplicas"
    MAX_REPLICAS = "maxReplicas"
    MAX_IDLE = "maxIdle"
    IDLE_DECAY = "idleDecaySecond"
    UNKNOWN_AGENTS = "unknownAgents"
    DEAD_AGENTS = "deadAgents"
    BACK_OFF = "backOff"
    ROLLOUT = "rollout"


class Pool(msgspec.Struct, frozen=True):
    """All that the rules read. ``asked`` counts creations not yet seen as pods; times are monotonic seconds."""

    limits: Autoscaler
    workers: Sequence[Worker]
    asked: int = 0
    pending_sessions: int = 0
    started_at: float = 0.0
    decay_since: float | None = None
    breaker: Breaker = CLOSED
    template_hash: str = ""
    """Of the template that new agents are made from."""
    rolling: bool = False
    """Idle agents of another template are being replaced."""

    counts: Tally = NOBODY
    """Of ``workers``; made here, whatever was given."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "counts", tally(self.workers, template_hash=self.template_hash))

    @property
    def size(self) -> int:
        """Agents that exist or were asked for, terminating and finished ones left out."""
        return self.asked + self.counts.live

    @property
    def idle(self) -> int:
        """Slots free now or once pending agents join, less the sessions that wait; may be negative."""
        return self.asked * self.limits.default_slots_per_agent + self.counts.free - self.pending_sessions

    @property
    def max_idle(self) -> int:
        """maxIdle raised so that a pool can settle: one agent more than minIdle needs may not be one too many."""
        limits = self.limits
        return max(limits.max_idle, limits.min_idle + limits.default_slots_per_agent - 1)

    @property
    def room(self) -> int:
        """Agents that maxReplicas leaves. Terminating pods hold their place until they are gone or given up."""
        going = self.count(State.TERMINATING) - self.counts.stuck
        return self.limits.max_replicas - self.size - going

    @property
    def replacing(self) -> int:
        """Agents under way of the present template that only make up for idle ones of an older template."""
        outdated = self.counts.outdated
        fresh = self.count(State.PENDING) - outdated[State.PENDING]
        return min(outdated[State.IDLE], fresh + self.asked)

    def is_outdated(self, worker: Worker) -> bool:
        return worker.state in LIVE and worker.template_hash != self.template_hash

    def count(self, state: State) -> int:
        return self.counts.states[state]


class Removal(msgspec.Struct, frozen=True):
    worker: Worker
    reason: str
    """In words, for the log and the event."""


class Decision(msgspec.Struct, frozen=True):
    """``next_at`` (monotonic seconds) is when the rules want to look again though nothing happened; None for never.

    ``rule`` is what bound the decision and ``reason`` says so in words.
    """

    rule: Rule = Rule.SETTLED
    reason: str = ""
    create: int = 0
    removals: tuple[Removal, ...] = ()
    decay_since: float | None = None
    next_at: float | None = None


def decide(pool: Pool, *, now: float) -> Decision:
    """Apply the rules once. The same picture at the same time gives the same decision."""
    dead, dead_at = _dead(pool, now)
    unknown = pool.count(State.UNKNOWN)
    if unknown:
        # Rule 1: know before you act.
        wait = pool.started_at + REJOIN_GRACE
        grown = _up(pool, now) if now >= wait else Decision()
        next_at = _earliest(grown.next_at, dead_at, wait if now < wait else None)
        if grown.create:
            return msgspec.structs.replace(grown, removals=dead, next_at=next_at)
        reason = f"{agents(unknown)} of before the start may still join again"
        return Decision(rule=Rule.UNKNOWN_AGENTS, reason=reason, removals=dead, next_at=next_at)
    if dead:
        # The next picture, without them and with the back-off that they may cause, says what they leave to be done.
        reason = f"{agents(len(dead))} cannot serve any more"
        return Decision(
            rule=Rule.DEAD_AGENTS, reason=reason, removals=dead, next_at=dead_at, decay_since=pool.decay_since
        )
    grown = _up(pool, now)
    if grown.create:
        return msgspec.structs.replace(grown, next_at=_earliest(grown.next_at, dead_at))
    shrunk = _down(pool, now)
    bound = shrunk if shrunk.rule is not Rule.SETTLED else grown
    return Decision(
        rule=bound.rule,
        reason=bound.reason,
        removals=shrunk.removals,
        decay_since=shrunk.decay_since,
        next_at=_earliest(grown.next_at, shrunk.next_at, dead_at),
    )


def _up(pool: Pool, now: float) -> Decision:
    """Rule 2: all that are needed are asked for at once."""
    limits = pool.limits
    for_idle = -(-(limits.min_idle - pool.idle) // limits.default_slots_per_agent)
    for_size = limits.min_replicas - pool.size
    wanted = max(for_idle, for_size)
    if wanted <= 0:
        return Decision(reason=f"{pool.idle} idle slots, {agents(pool.size)}: nothing to do")
    if for_idle >= for_size:
        rule, reason = Rule.MIN_IDLE, f"{pool.idle} idle slots are below minIdle {limits.min_idle}"
        if waiting := pool.pending_sessions:
            slots = pool.idle + waiting
            reason = f"{sessions_wait(waiting)}, {slots} slots are idle or on their way, minIdle is {limits.min_idle}"
    else:
        rule, reason = Rule.MIN_REPLICAS, f"{agents(pool.size)} are below minReplicas {limits.min_replicas}"
    room = pool.room
    if room <= 0:
        return Decision(rule=Rule.MAX_REPLICAS, reason=f"{reason}, but maxReplicas {limits.max_replicas} is reached")
    return allowed(pool, Decision(rule=rule, reason=reason, create=min(wanted, room)), now)


def allowed(pool: Pool, wish: Decision, now: float) -> Decision:
    """As much of the wished creations as past failures leave."""
    breaker, problem = pool.breaker, pool.breaker.problem
    if until := breaker.blocked_until(now):
        return Decision(rule=Rule.BACK_OFF, reason=f"{wish.reason}, but creation backs off: {problem}", next_at=until)
    counts = pool.counts
    unproved = sum(counts.states[state] - counts.outdated[state] for state in WAITING)
    room = breaker.room(asked=pool.asked, unproved=unproved)
    if room is None or room >= wish.create:
        return wish
    if room == 0:
        return Decision(rule=Rule.BACK_OFF, reason=f"{wish.reason}, but a probe comes first: {problem}")
    return msgspec.structs.replace(wish, create=room)


def _down(pool: Pool, now: float) -> Decision:
    """Rules 3 and 4, and the maximum: idle agents above it go at once, whatever minIdle says."""
    limits, size = pool.limits, pool.size
    idle = pool.idle - pool.replacing * limits.default_slots_per_agent
    rule, reason = Rule.SETTLED, ""
    removals: list[Removal] = []
    spare = idle - limits.min_idle - (0 if pool.count(State.HELD) else 1)  # whoever is held has no slot to be missed
    if size <= limits.max_replicas and (size <= limits.min_replicas or spare < 0):
        return Decision()
    candidates = removal_order(pool.workers, template_hash=pool.template_hash)
    while candidates and size > limits.max_replicas:
        worker = candidates.pop(0)
        rule, reason = Rule.MAX_REPLICAS, f"{agents(size)} are above maxReplicas {limits.max_replicas}"
        removals.append(Removal(worker, reason))
        size, idle = size - 1, idle - worker.free
    if pool.rolling and pool.counts.outdated[State.IDLE]:
        # Those that are to replace others would only be asked for again.
        candidates = [worker for worker in candidates if pool.is_outdated(worker)]
    for worker in list(candidates):
        if idle <= pool.max_idle or size <= limits.min_replicas:
            break
        if worker.free and idle - worker.free >= limits.min_idle:
            candidates.remove(worker)
            rule, reason = Rule.MAX_IDLE, f"{idle} idle slots are above maxIdle {pool.max_idle}"
            removals.append(Removal(worker, reason))
            size, idle = size - 1, idle - worker.free
    slow = next((worker for worker in candidates if idle - worker.free >= limits.min_idle), None)
    if slow is None or size <= limits.min_replicas:
        return Decision(rule=rule, reason=reason, removals=tuple(removals))
    since = now if pool.decay_since is None else pool.decay_since
    if now >= since + limits.idle_decay_second:
        reason = f"{idle} idle slots above minIdle {limits.min_idle} for {limits.idle_decay_second} s"
        removals.append(Removal(slow, reason))
        since = now
    if not removals or rule is Rule.SETTLED:
        rule = Rule.IDLE_DECAY
        reason = reason or f"{idle} idle slots above minIdle {limits.min_idle}: one agent goes each idleDecaySecond"
    next_at = since + limits.idle_decay_second
    return Decision(rule=rule, reason=reason, removals=tuple(removals), decay_since=since, next_at=next_at)


def _dead(pool: Pool, now: float) -> tuple[tuple[Removal, ...], float | None]:
    """Rule 6, and pods that ended or never will be agents: those to delete now, and when to look at the next one."""
    removals, due = [], None
    patience = pool.limits.kill_unknown_after_second
    for worker in pool.workers:
        if worker.recheck_at is not None and (due is None or worker.recheck_at < due):
            due = worker.recheck_at
        if worker.state in JOINED or worker.state is State.PENDING:
            continue
        if worker.state is State.FINISHED:
            removals.append(Removal(worker, f"the pod ended{_because(worker)}"))
        elif worker.state is State.BROKEN:
            removals.append(Removal(worker, f"it will not become an agent{_because(worker)}"))
        elif worker.state in (State.UNKNOWN, State.LOST):
            if now >= worker.since + patience:
                removals.append(Removal(worker, f"{worker.state} for {patience} s (killUnknownAfterSecond)"))
            else:
                due = _earliest(due, worker.since + patience)
    return tuple(removals), due


def _because(worker: Worker) -> str:
    return f": {worker.problem}" if worker.problem else ""


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)
