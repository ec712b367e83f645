"""An AgentPool's status in sentences, for who asks why it has the size that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.core.status import conditions_of, mapping
from app.core.words import agents
from app.model.agentpool import UNSEEN, AgentPool


def explain(pool: AgentPool) -> str:
    """A few sentences, one a line; of a status that may lack anything."""
    return "\n".join(_sentences(pool))


def _sentences(pool: AgentPool) -> Iterator[str]:
    status, key = mapping(pool.status), pool.metadata.key
    if not status or status.get("observedGeneration") == UNSEEN:
        yield f"{key}: velda-apiserver has not looked at this pool yet; does it watch namespace {key.namespace}?"
        return
    yield f"{key} has {_size(pool, status)}; {_slots(status)}."
    if status.get("observedGeneration") != pool.metadata.generation:
        yield "Its spec has changed since; what follows is about the one before."
    yield from _decision(mapping(status.get("lastDecision")))
    yield from _rollout(status)
    yield from _warmth(mapping(status.get("warmth")))
    yield from _trouble(status)


def _size(pool: AgentPool, status: Mapping[str, Any]) -> str:
    limits = mapping(mapping(pool.spec).get("autoscaler"))
    states = ("idle", "running", "pending", "unknown")
    counts = [f"{status[f'{state}Replicas']} {state}" for state in states if status.get(f"{state}Replicas")]
    of = f" of at most {limits['maxReplicas']}" if "maxReplicas" in limits else ""
    return f"{agents(status.get('replicas', 0))}{of}" + (f" ({', '.join(counts)})" if counts else "")


def _slots(status: Mapping[str, Any]) -> str:
    idle, waiting = status.get("idleSlots", 0), status.get("pendingSessions", 0)
    return f"{idle} slots are idle and {waiting} sessions wait"


def _decision(last: Mapping[str, Any]) -> Iterator[str]:
    if not last:
        return
    done = [
        f"asked for {agents(last['create'])}" if last.get("create") else "",
        f"removed {agents(last['remove'])}" if last.get("remove") else "",
    ]
    what = " and ".join(part for part in done if part) or "left it as it is"
    yield f"At {last.get('time', '?')} scaling {what} ({last.get('rule', '?')}): {last.get('reason', '')}."
    if "nextTime" in last:
        yield f"It looks again at {last['nextTime']}, or when something happens."


def _rollout(status: Mapping[str, Any]) -> Iterator[str]:
    rollout = mapping(status.get("rollout"))
    if rollout.get("failedTemplateHash"):
        failed, stable = rollout["failedTemplateHash"], rollout.get("stableTemplateHash", "")
        yield f"Template {failed} was given up, agents are made from {stable}: {rollout.get('failure', '')}."
    elif status.get("outdatedReplicas"):
        outdated, target = agents(status["outdatedReplicas"]), rollout.get("templateHash", "")
        yield f"{outdated} of an older template give way to {target}."


def _warmth(warmth: Mapping[str, Any]) -> Iterator[str]:
    if names := warmth.get("activeSchedules"):
        kept = f"minIdle is {warmth.get('minIdle')}, minReplicas {warmth.get('minReplicas')}"
        yield f"By schedule ({', '.join(names)}) {kept}."
    if message := mapping(warmth.get("prediction")).get("message"):
        yield f"{message}."


def _trouble(status: Mapping[str, Any]) -> Iterator[str]:
    if error := mapping(status.get("lastError")):
        yield f"Agents do not come ({error.get('cause', '?')}): {error.get('message', '')}."
    stalled = conditions_of(status).get("Stalled", {})
    if stalled.get("status") == "True":
        yield f"Waiting does not help ({stalled.get('reason')}): {stalled.get('message')}."
