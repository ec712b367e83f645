"""The limits that hold now: the spec's own, then what schedules replace, then minIdle as predicted from arrivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.core import prediction as predictions
from app.core import schedules
from app.core.prediction import Observations, Prediction
from app.core.schedules import Outlook
from app.core.workers import Wait, Worker
from app.model.agentpool import Autoscaler, PoolSpec


class Warmth(msgspec.Struct, frozen=True):
    """``outlook`` and ``observations`` are kept from one reconcile to the next; ``next_at`` is monotonic seconds."""

    limits: Autoscaler
    outlook: Outlook | None = None
    observations: Observations | None = None
    prediction: Prediction | None = None
    next_at: float | None = None


class Seen(msgspec.Struct, frozen=True):
    """What a prediction is made from: sessions requested since the last look, and how long new agents took to join."""

    arrivals: int
    joins: Sequence[float] = ()


def warm(spec: PoolSpec, before: Warmth | None, seen: Seen, *, now: float, wall: float) -> Warmth:
    """The warmth at this instant. Without schedules and targetHitRate it is the spec's limits and costs nothing."""
    limits, outlook, times = spec.autoscaler, None, []
    if spec.schedules:
        outlook = schedules.look(spec.schedules, now=wall, known=before.outlook if before else None)
        limits = outlook.apply(limits)
        limits = msgspec.structs.replace(limits, min_replicas=min(limits.min_replicas, limits.max_replicas))
        times += [now + outlook.until - wall] if outlook.until is not None else []
    if spec.autoscaler.target_hit_rate is None:
        return Warmth(limits=limits, outlook=outlook, next_at=min(times, default=None))
    observations = (before.observations if before else None) or Observations(at=now)
    observations = observations.arrived(seen.arrivals, now=now)
    for seconds in seen.joins:
        observations = observations.joined(seconds, now=now)
    observations, chosen = predictions.choose(
        observations,
        target=spec.autoscaler.target_hit_rate,
        minimum=limits.min_idle,
        maximum=limits.max_idle,
        slots=limits.default_slots_per_agent,
        now=now,
    )
    times += [chosen.next_at] if chosen.next_at is not None else []
    limits = msgspec.structs.replace(limits, min_idle=chosen.min_idle)
    return Warmth(
        limits=limits,
        outlook=outlook,
        observations=observations,
        prediction=chosen,
        next_at=min(times, default=None),
    )


def join_seconds(workers: Sequence[Worker], waits: Mapping[str, Wait], *, now: float) -> list[float]:
    """How long the agents that have just joined were waited for."""
    return [now - waits[worker.uid].since for worker in workers if worker.joined and worker.uid in waits]


def describe(warmth: Warmth, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the status says of it (status.warmth); ``before`` is what it said. Empty without any of it.

    The numbers of a prediction are renewed when the choice changes: they move with every arrival.
    """
    told: dict[str, Any] = {}
    if warmth.outlook:
        told["activeSchedules"] = list(warmth.outlook.active)
    if chosen := warmth.prediction:
        last = before.get("prediction")
        same = isinstance(last, Mapping) and (last.get("minIdle"), last.get("bound")) == (chosen.min_idle, chosen.bound)
        told["prediction"] = dict(last) if same and isinstance(last, Mapping) else _prediction(chosen)
    if told:
        told |= {"minIdle": warmth.limits.min_idle, "minReplicas": warmth.limits.min_replicas}
    return told


def restore(kept: Mapping[str, Any], *, now: float) -> Warmth | None:
    """The warmth that a new leader goes on with, from the status of the old one."""
    last = kept.get("prediction")
    if not isinstance(last, Mapping):
        return None
    try:
        observations = predictions.restored(
            per_minute=float(last["arrivalsPerMinute"]),
            join_seconds=float(last["joinSeconds"]),
            chosen=int(last["minIdle"]),
            now=now,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return Warmth(limits=Autoscaler(max_replicas=0, min_idle=0, max_idle=0), observations=observations)


def _prediction(chosen: Prediction) -> dict[str, Any]:
    return {
        "minIdle": chosen.min_idle,
        "bound": chosen.bound.value,
        "arrivalsPerMinute": chosen.arrivals_per_minute,
        "joinSeconds": chosen.join_seconds,
        "expectedHitRate": chosen.hit_rate,
        "message": str(chosen),
    }
