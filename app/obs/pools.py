"""What is measured of each pool, in Prometheus' text format: the figures of its status, and what was done for it.

prometheus_client takes 160 ms of CPU to print 1,000 pools' series, in which no webhook is answered; these lines take 7.
An update costs the same however many pools there are, and a pool that is gone leaves no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from app.core.status import conditions_of
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName

LABELS = ("pool_namespace", "pool")
"""Not ``namespace``: Prometheus gives each series that label, for where it was scraped."""


@dataclass(slots=True, eq=False)
class PoolFigures:
    """One pool's. The counts are of this term of leadership."""

    labels: str
    status: Mapping[str, Any] = field(default_factory=dict)
    """As it was written last, or is to be written next."""
    limits: Autoscaler | None = None
    """Those in force, schedules and predictions included."""
    created: int = 0
    refused: int = 0
    deleted: int = 0
    sessions_requested: int = 0
    sessions_started: int = 0
    session_starts_failed: int = 0


class Family(NamedTuple):
    """One metric; ``read`` gives a pool's value."""

    name: str
    type: Literal["gauge", "counter"]
    documentation: str
    read: Callable[[PoolFigures], int]


def _count(key: str) -> Callable[[PoolFigures], int]:
    """Of the status, which may be anything in a pool that was never ours to scale."""

    def read(figures: PoolFigures) -> int:
        value = figures.status.get(key)
        return value if type(value) is int else 0

    return read


def _holds(condition: str) -> Callable[[PoolFigures], int]:
    def read(figures: PoolFigures) -> int:
        return int(conditions_of(figures.status).get(condition, {}).get("status") == "True")

    return read


FAMILIES = (
    Family("velda_pool_size", "gauge", "Agents that exist or were asked for.", _count("replicas")),
    Family("velda_pool_idle_workers", "gauge", "Agents that have joined and run no session.", _count("idleReplicas")),
    Family("velda_pool_running_workers", "gauge", "Agents that run a session.", _count("runningReplicas")),
    Family("velda_pool_pending_workers", "gauge", "Agents that have not joined yet.", _count("pendingReplicas")),
    Family(
        "velda_pool_unknown_workers",
        "gauge",
        "Agents whose pod is there and whose stream is not: unknown since a start, or lost.",
        _count("unknownReplicas"),
    ),
    Family(
        "velda_pool_outdated_workers", "gauge", "Agents of an older template than wanted.", _count("outdatedReplicas")
    ),
    Family("velda_pool_slots", "gauge", "Sessions that the agents that have joined can run at once.", _count("slots")),
    Family("velda_pool_idle_capacity", "gauge", "Slots of those that are free.", _count("idleSlots")),
    Family("velda_pool_pending_sessions", "gauge", "Sessions that wait for a slot.", _count("pendingSessions")),
    Family("velda_pool_ready", "gauge", "1 while the condition Ready is True.", _holds("Ready")),
    Family("velda_pool_stalled", "gauge", "1 while the condition Stalled is True.", _holds("Stalled")),
    Family(
        "velda_pool_max_replicas",
        "gauge",
        "Agents that there may be, maxReplicas.",
        lambda figures: figures.limits.max_replicas if figures.limits else 0,
    ),
    Family(
        "velda_pool_min_idle",
        "gauge",
        "Slots that are to be idle: minIdle as it is in force, by schedules and predictions too.",
        lambda figures: figures.limits.min_idle if figures.limits else 0,
    ),
    Family("velda_pool_scale_up_total", "counter", "Worker pods created.", lambda figures: figures.created),
    Family(
        "velda_pool_scale_up_refused_total",
        "counter",
        "Worker pods that the API server refused to create.",
        lambda figures: figures.refused,
    ),
    Family("velda_pool_scale_down_total", "counter", "Worker pods deleted.", lambda figures: figures.deleted),
    Family(
        "velda_pool_sessions_requested_total",
        "counter",
        "New sessions that clients requested.",
        lambda figures: figures.sessions_requested,
    ),
    Family(
        "velda_pool_sessions_started_total",
        "counter",
        "Sessions that an agent has started.",
        lambda figures: figures.sessions_started,
    ),
    Family(
        "velda_pool_session_starts_failed_total",
        "counter",
        "Starts that an agent refused or did not answer; another agent is asked then.",
        lambda figures: figures.session_starts_failed,
    ),
)


class PoolTable:
    """The leader's pools; nothing on any other replica. For one thread."""

    def __init__(self) -> None:
        self._pools: dict[NamespacedName, PoolFigures] = {}

    def begin(self, pool: NamespacedName) -> PoolFigures:
        """The pool's series are there from now on; those of one that had its name are begun anew."""
        # Neither name has a character that would have to be escaped.
        labels = f'{{{LABELS[0]}="{pool.namespace}",{LABELS[1]}="{pool.name}"}}'
        figures = self._pools[pool] = PoolFigures(labels)
        return figures

    def of(self, pool: NamespacedName) -> PoolFigures:
        """Where to count; of a pool that is gone, or has not begun, somewhere that nobody sees."""
        return self._pools.get(pool) or PoolFigures("")

    def forget(self, pool: NamespacedName) -> None:
        self._pools.pop(pool, None)

    def clear(self) -> None:
        self._pools.clear()

    def text(self) -> str:
        """All series, as Prometheus reads them."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        pools = list(self._pools.values())
        for name, kind, documentation, read in FAMILIES:
            yield f"# HELP {name} {documentation}\n# TYPE {name} {kind}\n"
            yield from [f"{name}{figures.labels} {read(figures)}\n" for figures in pools]


POOLS = PoolTable()
"""Of this process, as the registry of its other metrics is."""
