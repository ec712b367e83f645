"""A changed template: which version new agents are made from, and which agents of an older one may go now.

Running agents are never touched. Idle ones are replaced within maxSurge and maxUnavailable, and keep serving until one
agent of the new version has joined. A version of which none joins in time is given up for the last one that worked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.scaling import Decision, Pool, Removal, Rule, allowed
from app.core.workers import JOINED, State
from app.model.agentpool import PoolSpec, Rollout


class Progress(msgspec.Struct, frozen=True):
    """What the pool's status kept of a Version."""

    target: str = ""
    stable: str = ""
    failed: str = ""
    failure: str = ""
    started: float = 0.0


class Version(msgspec.Struct, frozen=True):
    """Which template new agents are made from, and what is known of it.

    ``stable`` is the last version of which an agent has joined, ``failed`` one that was given up for
    ``failure``; ``started`` is in epoch seconds, so that it outlives this process in the pool's status.
    """

    target: str
    template: dict[str, Any]
    stable: str = ""
    failed: str = ""
    failure: str = ""
    started: float = 0.0

    @property
    def proved(self) -> bool:
        return self.target == self.stable


def choose(spec: PoolSpec, known: Progress, revisions: Mapping[str, dict[str, Any]], *, wall: float) -> Version:
    """The spec's version, unless that one was given up and the stable one is at hand."""
    wanted = spec.template_hash
    if known.failed == wanted and known.stable in revisions:
        template = revisions[known.stable]
        return Version(known.stable, template, known.stable, wanted, known.failure, known.started)
    started = known.started if known.target == wanted and known.started else wall
    return Version(wanted, spec.template, stable=known.stable, started=started)


def advance(
    version: Version, pool: Pool, rollout: Rollout, revisions: Mapping[str, dict[str, Any]], *, wall: float
) -> Version:
    """The version after a look at the agents: proved when one has joined, given up when its time is over."""
    if version.proved:
        return version
    if any(worker.template_hash == version.target and worker.state in JOINED for worker in pool.workers):
        return msgspec.structs.replace(version, stable=version.target)
    late, problem = wall >= version.started + rollout.progress_deadline_second, pool.breaker.problem
    if late and problem and version.stable in revisions:
        stable = version.stable
        return Version(stable, revisions[stable], stable, version.target, str(problem), version.started)
    return version


def roll(pool: Pool, decision: Decision, rollout: Rollout, *, proved: bool, now: float) -> Decision:
    """The decision of the rules, with what the rollout adds when the rules want nothing else."""
    if rollout.strategy == "OnDelete" or decision.create or decision.removals or pool.count(State.UNKNOWN):
        return decision
    if not pool.counts.outdated:
        return decision
    outdated = [worker for worker in pool.workers if pool.is_outdated(worker) and worker.state is State.IDLE]
    waiting = [w for w in pool.workers if pool.is_outdated(w) and w.state in (State.PENDING, State.HELD)]
    if not outdated and not waiting:
        return decision
    needed = _needed(pool)
    surge, unavailable = _bounds(rollout, needed, room=pool.limits.max_replicas - needed)
    serving = pool.counts.joined
    reason = "it is of an older template"
    if proved:
        spare = max(0, serving - (needed - unavailable))
        gone = [*waiting, *outdated[:spare]]
        if gone:
            return _removing(decision, tuple(Removal(worker, reason) for worker in gone))
    extra = min(len(outdated) - pool.replacing, needed + surge - pool.size, pool.room)
    if extra > 0:
        wish = Decision(rule=Rule.ROLLOUT, reason=f"{len(outdated)} idle agents are of an older template", create=extra)
        return _merge(decision, allowed(pool, wish, now))
    if outdated and not (proved or pool.replacing or pool.breaker.problem):
        # Neither maxReplicas nor maxSurge leave room for a first agent of the new version: one of the old makes it.
        return _removing(decision, (Removal(outdated[0], reason),))
    return decision


def _needed(pool: Pool) -> int:
    """Agents that the rules would keep now: the running ones and those that minIdle and minReplicas ask for."""
    limits = pool.limits
    idle = math.ceil((limits.min_idle + pool.pending_sessions) / limits.default_slots_per_agent)
    return min(limits.max_replicas, max(limits.min_replicas, pool.count(State.RUNNING) + idle))


def _bounds(rollout: Rollout, needed: int, *, room: int) -> tuple[int, int]:
    """maxSurge rounded up and maxUnavailable rounded down, never both zero (source: Deployment's ResolveFenceposts).

    ``room``: agents that maxReplicas leaves above those needed; a surge takes no more.
    """
    surge = min(room, _share(rollout.max_surge, needed, math.ceil))
    unavailable = _share(rollout.max_unavailable, needed, math.floor)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _share(value: int | str, of: int, rounded: Any) -> int:
    return value if isinstance(value, int) else int(rounded(int(value.removesuffix("%")) * of / 100))


def _removing(decision: Decision, removals: tuple[Removal, ...]) -> Decision:
    return msgspec.structs.replace(decision, rule=Rule.ROLLOUT, reason=removals[0].reason, removals=removals)


def _merge(decision: Decision, grown: Decision) -> Decision:
    times = [time for time in (decision.next_at, grown.next_at) if time is not None]
    return msgspec.structs.replace(
        decision, rule=grown.rule, reason=grown.reason, create=grown.create, next_at=min(times, default=None)
    )
