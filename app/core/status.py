"""An AgentPool's status, as kstatus reads it: Ready, Reconciling, Stalled, each with observedGeneration.

Reconciling belongs to a new generation and to the first fill; steady refilling is told by CapacityReady alone, or a
GitOps tool's health would flap with load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.core.backoff import Backoff
from app.core.scaling import Pool
from app.core.workers import State
from app.model.agentpool import AgentPool, FieldError
from app.model.meta import POOL_LABEL

MESSAGE_LIMIT = 1024
SETTLED = "Settled"
"""Why Reconciling is False once the pool has been full in this generation."""


def timestamp(wall: float) -> str:
    """Epoch seconds as Kubernetes writes a time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_first(pool: AgentPool) -> bool:
    """No status yet, or one of an older spec: it must be told before anything is done, or the pool looks finished."""
    return _mapping(pool.status).get("observedGeneration") != pool.metadata.generation


def of_pool(pool: AgentPool, scaling: Pool, backoff: Backoff, *, wall: float) -> dict[str, Any]:
    """The whole status of a pool whose spec is good."""
    joined = [worker for worker in scaling.workers if worker.state in (State.IDLE, State.RUNNING)]
    status: dict[str, Any] = {
        "observedGeneration": pool.metadata.generation,
        "replicas": scaling.size,
        "readyReplicas": len(joined),
        "idleReplicas": scaling.count(State.IDLE),
        "runningReplicas": scaling.count(State.RUNNING),
        "pendingReplicas": scaling.count(State.PENDING) + scaling.asked,
        "unknownReplicas": scaling.count(State.UNKNOWN) + scaling.count(State.LOST),
        "slots": sum(worker.slots for worker in joined),
        "idleSlots": sum(worker.free for worker in joined),
        "pendingSessions": scaling.pending_sessions,
        "selector": f"{POOL_LABEL}={pool.metadata.name}",
    }
    if backoff.error:
        status["lastError"] = {"message": _cut(backoff.error), "time": timestamp(backoff.error_time)}
    facts = _Facts(scaling, backoff, filled=_was_filled(pool), first=is_first(pool))
    status["conditions"] = _conditions(pool, facts.conditions(), wall=wall)
    return status


def of_refused(pool: AgentPool, errors: Sequence[FieldError], *, wall: float) -> dict[str, Any]:
    """The status of a pool whose spec cannot be used; what was counted last stays."""
    message = "; ".join(str(error) for error in errors)
    told = {
        "Ready": ("False", "InvalidSpec", message),
        "Reconciling": ("False", "InvalidSpec", "Waiting for the spec to be mended"),
        "Stalled": ("True", "InvalidSpec", message),
    }
    status = dict(_mapping(pool.status))
    status["observedGeneration"] = pool.metadata.generation
    status["conditions"] = _conditions(pool, told, wall=wall)
    return status


class _Facts:
    """What the conditions are made of."""

    def __init__(self, scaling: Pool, backoff: Backoff, *, filled: bool, first: bool) -> None:
        limits = scaling.limits
        joined = scaling.count(State.IDLE) + scaling.count(State.RUNNING)
        idle = sum(worker.free for worker in scaling.workers if worker.state in (State.IDLE, State.RUNNING))
        self.idle = idle - scaling.pending_sessions
        self.min_idle = limits.min_idle
        at_maximum = scaling.size >= limits.max_replicas and joined >= limits.max_replicas
        enough = self.idle >= limits.min_idle and joined >= limits.min_replicas
        self.at_maximum = at_maximum and not enough
        self.capacity = enough or at_maximum
        self.filled, self.first, self.backoff = filled, first, backoff

    def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Type → status, reason, message."""
        return {
            "Ready": self._ready(),
            "Reconciling": self._reconciling(),
            "Stalled": self._stalled(),
            "CapacityReady": ("True" if self.capacity else "False", *self._capacity()),
        }

    def _ready(self) -> tuple[str, str, str]:
        if self.backoff.error and not self.capacity:
            return "False", "CreateFailed", self.backoff.error
        if self.first or not (self.capacity or self.filled):
            return "Unknown", "Filling", self._capacity()[1]
        return "True", *(self._capacity() if self.capacity else ("Refilling", self._capacity()[1]))

    def _reconciling(self) -> tuple[str, str, str]:
        if self._broken():
            return "False", "Stalled", "Waiting does not help; see Stalled"
        if self.first or not (self.capacity or self.filled):
            return "True", "Filling", self._capacity()[1]
        return "False", SETTLED, "The pool follows its spec"

    def _stalled(self) -> tuple[str, str, str]:
        if self._broken():
            return "True", "CreateFailed", self.backoff.error
        return "False", "Working", "Nothing stands in the way"

    def _broken(self) -> bool:
        return self.backoff.terminal and not self.capacity

    def _capacity(self) -> tuple[str, str]:
        if self.at_maximum:
            return "AtMaximum", f"All agents that maxReplicas allows have joined; {max(0, self.idle)} slots are idle"
        verb = "IdleEnough" if self.capacity else "IdleBelowMinimum"
        return verb, f"{max(0, self.idle)} slots of joined agents are idle, minIdle is {self.min_idle}"


def _was_filled(pool: AgentPool) -> bool:
    """The pool has been full once in this generation, by its own status, so that a restart does not forget it."""
    conditions = _mapping(pool.status).get("conditions")
    return any(
        isinstance(condition, Mapping)
        and condition.get("type") == "Reconciling"
        and condition.get("reason") == SETTLED
        and condition.get("observedGeneration") == pool.metadata.generation
        for condition in (conditions if isinstance(conditions, list) else [])
    )


def _conditions(pool: AgentPool, told: Mapping[str, tuple[str, str, str]], *, wall: float) -> list[dict[str, Any]]:
    """Conditions in a fixed order; the time of the last transition is kept while the status stays the same."""
    known = _mapping(pool.status).get("conditions")
    before = {c.get("type"): c for c in known if isinstance(c, Mapping)} if isinstance(known, list) else {}
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
