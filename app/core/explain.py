"""An AgentPool's status in sentences, for who asks why it has the size that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.model.agentpool import AgentPool


def explain(pool: AgentPool) -> str:
    """A few sentences, one a line; of a status that may lack anything."""
    return "\n".join(_sentences(pool))


def _sentences(pool: AgentPool) -> Iterator[str]:
    status, key = _mapping(pool.status), pool.metadata.key
    if not status:
        yield f"{key}: velda-apiserver has not looked at this pool yet; does it watch namespace {key.namespace}?"
        return
    yield f"{key} has {_size(pool, status)}; {_slots(status)}."
    if status.get("observedGeneration") != pool.metadata.generation:
        yield "Its spec has changed since; what follows is about the one before."
    yield from _decision(_mapping(status.get("lastDecision")))
    yield from _rollout(status)
    yield from _warmth(_mapping(status.get("warmth")))
    yield from _trouble(status)


def _size(pool: AgentPool, status: Mapping[str, Any]) -> str:
    limits = _mapping(_mapping(pool.spec).get("autoscaler"))
    states = ("idle", "running", "pending", "unknown")
    counts = [f"{status[f'{state}Replicas']} {state}" for state in states if status.get(f"{state}Replicas")]
    of = f" of at most {limits['maxReplicas']}" if "maxReplicas" in limits else ""
    return f"{_agents(status.get('replicas', 0))}{of}" + (f" ({', '.join(counts)})" if counts else "")


def _slots(status: Mapping[str, Any]) -> str:
    idle, waiting = status.get("idleSlots", 0), status.get("pendingSessions", 0)
    return f"{idle} slots are idle and {waiting} sessions wait"


def _decision(last: Mapping[str, Any]) -> Iterator[str]:
    if not last:
        return
    done = [
        f"asked for {_agents(last['create'])}" if last.get("create") else "",
        f"removed {_agents(last['remove'])}" if last.get("remove") else "",
    ]
    what = " and ".join(part for part in done if part) or "left it as it is"
    yield f"At {last.get('time', '?')} scaling {what} ({last.get('rule', '?')}): {last.get('reason', '')}."
    if "nextTime" in last:
        yield f"It looks again at {last['nextTime']}, or when something happens."


def _rollout(status: Mapping[str, Any]) -> Iterator[str]:
    rollout = _mapping(status.get("rollout"))
    if rollout.get("failedTemplateHash"):
        failed, stable = rollout["failedTemplateHash"], rollout.get("stableTemplateHash", "")
        yield f"Template {failed} was given up, agents are made from {stable}: {rollout.get('failure', '')}."
    elif status.get("outdatedReplicas"):
        outdated, target = _agents(status["outdatedReplicas"]), rollout.get("templateHash", "")
        yield f"{outdated} of an older template give way to {target}."


def _warmth(warmth: Mapping[str, Any]) -> Iterator[str]:
    if names := warmth.get("activeSchedules"):
        kept = f"minIdle is {warmth.get('minIdle')}, minReplicas {warmth.get('minReplicas')}"
        yield f"By schedule ({', '.join(names)}) {kept}."
    if message := _mapping(warmth.get("prediction")).get("message"):
        yield f"{message}."


def _trouble(status: Mapping[str, Any]) -> Iterator[str]:
    if error := _mapping(status.get("lastError")):
        yield f"Agents do not come ({error.get('cause', '?')}): {error.get('message', '')}."
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if condition.get("type") == "Stalled" and condition.get("status") == "True":
            yield f"Waiting does not help ({condition.get('reason')}): {condition.get('message')}."


def _agents(count: Any) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
