"""A pool's scheduled warmth, as spec.schedules says it."""

from __future__ import annotations

import msgspec


class Schedule(msgspec.Struct, frozen=True, rename="camel"):
    """From each time that ``schedule`` (cron, five fields) names in ``time_zone`` (IANA), for ``duration_second``,
    the autoscaler's minIdle or minReplicas are replaced by these; None leaves the autoscaler's.
    """

    name: str
    schedule: str
    duration_second: int
    time_zone: str = "UTC"
    min_idle: int | None = None
    min_replicas: int | None = None
