"""An AgentPool's status, as kstatus reads it: Ready, Reconciling, Stalled, each with observedGeneration.

Reconciling belongs to a new generation and to the first fill; steady refilling is told by CapacityReady alone, or a
GitOps tool's health would flap with load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.core.diagnosis import Problem
from app.core.rollout import Progress, Version
from app.core.scaling import Decision, Pool, Rule
from app.core.warmth import Warmth, describe
from app.core.workers import WAITING, State, ailing
from app.model.agentpool import AgentPool, FieldError, Rollout
from app.model.meta import POOL_LABEL

MESSAGE_LIMIT = 1024
SETTLED = "Settled"
"""Why Reconciling is False once the pool has been full in this generation."""


def timestamp(wall: float) -> str:
    """Epoch seconds as Kubernetes writes a time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_first(pool: AgentPool) -> bool:
    """No status yet, or one of an older spec: it must be told before anything is done, or the pool looks finished."""
    return mapping(pool.status).get("observedGeneration") != pool.metadata.generation


def progress(pool: AgentPool) -> Progress:
    """What the status keeps of the pool's rollout."""
    kept = mapping(mapping(pool.status).get("rollout"))
    return Progress(
        target=str(kept.get("templateHash", "")),
        stable=str(kept.get("stableTemplateHash", "")),
        failed=str(kept.get("failedTemplateHash", "")),
        failure=str(kept.get("failure", "")),
        started=_epoch(kept.get("startTime")),
    )


def warmth(pool: AgentPool) -> Mapping[str, Any]:
    """What the status keeps of schedules and predictions."""
    return mapping(mapping(pool.status).get("warmth"))


def of_pool(
    pool: AgentPool,
    scaling: Pool,
    version: Version,
    decision: Decision,
    warm: Warmth,
    *,
    rollout: Rollout,
    now: float,
    wall: float,
) -> dict[str, Any]:
    """The whole status of a pool whose spec is good."""
    counts = scaling.counts
    outdated = counts.outdated.total()
    status: dict[str, Any] = {
        "observedGeneration": pool.metadata.generation,
        "replicas": scaling.size,
        "readyReplicas": counts.joined,
        "idleReplicas": scaling.count(State.IDLE),
        "runningReplicas": scaling.count(State.RUNNING),
        "pendingReplicas": sum(counts.states[state] for state in WAITING) + scaling.asked,
        "unknownReplicas": scaling.count(State.UNKNOWN) + scaling.count(State.LOST),
        "updatedReplicas": scaling.size - outdated,
        "outdatedReplicas": outdated,
        "slots": counts.joined_slots,
        "idleSlots": counts.joined_free,
        "pendingSessions": scaling.pending_sessions,
        "selector": f"{POOL_LABEL}={pool.metadata.name}",
        "rollout": _rollout(version),
        "lastDecision": _decision(pool, scaling, decision, now=now, wall=wall),
    }
    if told := describe(warm, warmth(pool)):
        status["warmth"] = told
    breaker = scaling.breaker
    if problem := breaker.problem:
        error = {"cause": problem.cause.value, "message": _cut(str(problem)), "time": timestamp(breaker.problem_time)}
        status["lastError"] = error
    facts = _Facts(pool, scaling, version, rollout=rollout, now=now)
    status["conditions"] = _conditions(pool, facts.conditions(), wall=wall)
    return status


def _rollout(version: Version) -> dict[str, Any]:
    kept = {"templateHash": version.target, "startTime": timestamp(version.started)}
    if version.stable:
        kept["stableTemplateHash"] = version.stable
    if version.failed:
        kept |= {"failedTemplateHash": version.failed, "failure": _cut(version.failure)}
    return kept


def _decision(pool: AgentPool, scaling: Pool, decision: Decision, *, now: float, wall: float) -> dict[str, Any]:
    """The last decision that did something or was bound; a settled pool keeps what it did last."""
    last = mapping(mapping(pool.status).get("lastDecision"))
    if decision.rule is Rule.SETTLED and (last.get("create") or last.get("remove")):
        return dict(last)
    told: dict[str, Any] = {
        "rule": decision.rule.value,
        "reason": _cut(decision.reason),
        "size": scaling.size,
        "idleSlots": scaling.idle,
        "pendingSessions": scaling.pending_sessions,
        "create": decision.create,
        "remove": len(decision.removals),
    }
    if decision.next_at is not None and decision.rule is not Rule.SETTLED:
        told["nextTime"] = timestamp(wall + decision.next_at - now)
    same = all(last.get(key) == value for key, value in told.items() if key != "nextTime")
    return dict(last) if same else {**told, "time": timestamp(wall)}


def of_refused(pool: AgentPool, errors: Sequence[FieldError], *, wall: float) -> dict[str, Any]:
    """The status of a pool whose spec cannot be used; what was counted last stays."""
    message = "; ".join(str(error) for error in errors)
    told = {
        "Ready": ("False", "InvalidSpec", message),
        "Reconciling": ("False", "InvalidSpec", "Waiting for the spec to be mended"),
        "Stalled": ("True", "InvalidSpec", message),
    }
    status = dict(mapping(pool.status))
    status["observedGeneration"] = pool.metadata.generation
    status["conditions"] = _conditions(pool, told, wall=wall)
    return status


class _Facts:
    """What the conditions are made of."""

    def __init__(self, pool: AgentPool, scaling: Pool, version: Version, *, rollout: Rollout, now: float) -> None:
        limits, counts = scaling.limits, scaling.counts
        self.idle = counts.joined_free - scaling.pending_sessions
        self.min_idle = limits.min_idle
        at_maximum = scaling.size >= limits.max_replicas and counts.joined >= limits.max_replicas
        enough = self.idle >= limits.min_idle and counts.joined >= limits.min_replicas
        self.at_maximum = at_maximum and not enough
        self.capacity = enough or at_maximum
        self.first, self.filled = is_first(pool), _was_filled(pool)
        self.version, self.breaker = version, scaling.breaker
        self.ailing = "" if self.capacity else ailing(scaling.workers)
        self.rolling = rollout.strategy == "RollingUpdate" and any(
            counts.outdated[state] for state in WAITING | {State.IDLE}
        )
        since = scaling.breaker.open_since
        self.late = since is not None and now >= since + rollout.progress_deadline_second

    def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Type → status, reason, message."""
        return {
            "Ready": self._ready(),
            "Reconciling": self._reconciling(),
            "Stalled": self._stalled(),
            "CapacityReady": ("True" if self.capacity else "False", *self._capacity()),
        }

    def _ready(self) -> tuple[str, str, str]:
        problem = self.breaker.problem
        if problem and not self.capacity:
            return "False", _word(problem), str(problem)
        if self.first or not (self.capacity or self.filled):
            return "Unknown", "Filling", self._capacity()[1]
        return "True", *(self._capacity() if self.capacity else ("Refilling", self._capacity()[1]))

    def _reconciling(self) -> tuple[str, str, str]:
        if self._broken():
            return "False", "Stalled", "Waiting does not help; see Stalled"
        if self.first or not (self.capacity or self.filled):
            return "True", "Filling", self._capacity()[1]
        if self.rolling:
            return "True", "RollingOut", f"Agents of older templates give way to template {self.version.target}"
        return "False", SETTLED, "The pool follows its spec"

    def _stalled(self) -> tuple[str, str, str]:
        if self.version.failed:
            return "True", "RolledBack", f"Template {self.version.failed} was given up: {self.version.failure}"
        if (problem := self.breaker.problem) and self._broken():
            return "True", _word(problem), str(problem)
        return "False", "Working", "Nothing stands in the way"

    def _broken(self) -> bool:
        stuck = self.breaker.problem is not None and (self.breaker.refused or self.late)
        return bool(self.version.failed) or (stuck and not self.capacity)

    def _capacity(self) -> tuple[str, str]:
        if self.at_maximum:
            return "AtMaximum", f"All agents that maxReplicas allows have joined; {max(0, self.idle)} slots are idle"
        verb = "IdleEnough" if self.capacity else "IdleBelowMinimum"
        text = f"{max(0, self.idle)} slots of joined agents are idle, minIdle is {self.min_idle}"
        return verb, f"{text}; {self.ailing}" if self.ailing else text


def _word(problem: Problem) -> str:
    """A condition's reason: one CamelCase word (Kubernetes API conventions)."""
    if problem.reason and problem.reason.isalnum():
        return problem.reason
    return problem.cause.title().replace(" ", "")


def _was_filled(pool: AgentPool) -> bool:
    """The pool has been full once in this generation, by its own status, so that a restart does not forget it."""
    condition = conditions_of(mapping(pool.status)).get("Reconciling", {})
    return bool(condition.get("reason") == SETTLED and condition.get("observedGeneration") == pool.metadata.generation)


def _conditions(pool: AgentPool, told: Mapping[str, tuple[str, str, str]], *, wall: float) -> list[dict[str, Any]]:
    """Conditions in a fixed order; the time of the last transition is kept while the status stays the same."""
    before = conditions_of(mapping(pool.status))
    conditions = []
    for kind, (value, reason, message) in told.items():
        old = before.get(kind, {})
        since = old.get("lastTransitionTime") if old.get("status") == value else None
        conditions.append(
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": _cut(message),
                "observedGeneration": pool.metadata.generation,
                "lastTransitionTime": since or timestamp(wall),
            }
        )
    return conditions


def _epoch(text: Any) -> float:
    """The time that ``timestamp`` wrote; 0.0 for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        return 0.0


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, of a status that may hold anything; empty for what is no mapping."""
    return value if isinstance(value, Mapping) else {}


def conditions_of(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By type, of a status that may hold anything; what is no condition is left out."""
    found = status.get("conditions")
    listed = [mapping(condition) for condition in found] if isinstance(found, list) else []
    return {kind: condition for condition in listed if isinstance(kind := condition.get("type"), str)}


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
