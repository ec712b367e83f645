"""What is told once as an event when a pool's status changes: why it aims at something else than before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from app.core.status import conditions_of, mapping

Status = Mapping[str, Any]


class Event(msgspec.Struct, frozen=True):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def news(before: Status, after: Status) -> Iterator[Event]:
    """The events between two statuses of a pool; ``before`` may hold anything, ``after`` is ours."""
    yield from _ready(before, after)
    yield from _rollout(before, after)
    yield from _warmth(mapping(before.get("warmth")), mapping(after.get("warmth")))


def _ready(before: Status, after: Status) -> Iterator[Event]:
    was, now = conditions_of(before).get("Ready", {}), conditions_of(after).get("Ready", {})
    if now.get("status") == "True" and was.get("status") in ("False", "Unknown"):
        yield Event("Normal", "Ready", f"The pool takes sessions: {now['message']}")
    if _is_short(after) and not _is_short(before):
        yield Event("Warning", "AtMaximum", "Sessions wait: all agents that maxReplicas allows are busy")


def _is_short(status: Status) -> bool:
    capacity = conditions_of(status).get("CapacityReady", {})
    return bool(status.get("pendingSessions")) and capacity.get("reason") == "AtMaximum"


def _rollout(before: Status, after: Status) -> Iterator[Event]:
    was, now = mapping(before.get("rollout")).get("templateHash"), after["rollout"]["templateHash"]
    if was and was != now and not after["rollout"].get("failedTemplateHash"):
        yield Event("Normal", "RolloutStarted", f"New agents are made from template {now}, which replaces {was}")
    if before.get("outdatedReplicas") and not after["outdatedReplicas"]:
        yield Event("Normal", "RolloutDone", f"All agents are of template {now}")


def _warmth(before: Status, after: Status) -> Iterator[Event]:
    kept = f"minIdle is {after.get('minIdle')}, minReplicas {after.get('minReplicas')}"
    if "activeSchedules" in after and (active := after["activeSchedules"]) != before.get("activeSchedules", []):
        by = f"By schedule ({', '.join(active)})" if active else "No schedule is active any more:"
        yield Event("Normal", "SchedulesChanged", f"{by} {kept}")
    chosen = mapping(after.get("prediction"))
    if chosen and chosen["minIdle"] != mapping(before.get("prediction")).get("minIdle"):
        yield Event("Normal", "PredictionChanged", str(chosen["message"]))
