"""The AgentPool resource: as it comes from the API server (spec not yet judged), and its spec once it is known good."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.model.meta import ObjectMeta
from app.model.schedule import Schedule

UNSEEN = -1
"""observedGeneration of a pool that no controller has looked at: the CRD's default, without which kstatus takes a new
pool as finished."""


class Condition(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A metav1.Condition; ``last_transition_time`` is RFC 3339 text in UTC."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class AgentPool(msgspec.Struct, frozen=True, rename="camel"):
    """``spec`` and ``status`` stay as they came: a bad pool must be readable, so that its status can say why."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Any = None
    status: Any = None


class Autoscaler(msgspec.Struct, frozen=True, rename="camel"):
    """Sizes are counted in agents (min/max_replicas), idleness in slots (min/max_idle), times in seconds."""

    max_replicas: int
    min_idle: int
    max_idle: int
    min_replicas: int = 0
    idle_decay_second: int = 60
    kill_unknown_after_second: int = 300
    default_slots_per_agent: int = 1
    join_timeout_second: int = 600
    target_hit_rate: float | None = None
    """Share of sessions that are to find a slot at once: minIdle is then chosen between min_idle and max_idle."""


class Rollout(msgspec.Struct, frozen=True, rename="camel"):
    """How agents of an older template are replaced; surge and unavailable as in a Deployment, in agents or ``25%``."""

    strategy: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"
    progress_deadline_second: int = 600


class PoolSpec(msgspec.Struct, frozen=True, rename="camel"):
    """An AgentPool's spec that validation accepted. ``template`` is the PodTemplateSpec as the user wrote it."""

    autoscaler: Autoscaler
    template: dict[str, Any]
    rollout: Rollout = Rollout()
    schedules: tuple[Schedule, ...] = ()
    template_hash: str = ""


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with an object, as a StatusCause of the Kubernetes API.

    ``field`` is a path as kubectl prints it (``spec.template.spec.containers[0].image``), ``reason`` a CauseType
    (FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueForbidden …).
    """

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
